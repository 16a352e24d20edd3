pub mod clock;
pub mod config;
pub mod handle;
pub mod secret;
pub mod store;
