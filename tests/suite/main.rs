
mod admin;
