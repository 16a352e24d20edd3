mod docs;
mod store;
