//! One binary: the House, and a module for each room.

mod binary;
mod house;
mod redis_server;

mod admin;
mod app;
mod browser;
mod context;
mod durability;
mod docs;
mod exchange;
mod identity;
mod kubernetes;
mod limit;
mod listener;
mod respond;
mod quickstart;
mod route;
mod redis;
mod session;
mod store;
mod telemetry;
mod upstream;
mod writeback;
