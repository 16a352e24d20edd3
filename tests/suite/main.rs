//! One binary: the House, and a module for each room.

mod binary;
mod house;
mod redis_server;

mod admin;
mod context;
mod durability;
mod docs;
mod exchange;
mod identity;
mod route;
mod redis;
mod store;
mod writeback;
