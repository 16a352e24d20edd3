mod admin;
mod store;
