//! One binary: the House, and a module for each room.

mod binary;
mod house;

mod admin;
mod exchange;
mod store;
