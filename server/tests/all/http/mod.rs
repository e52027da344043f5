//! What the HTTP side promises, through the router over a database of its own per test.

mod access;
mod attention;
mod bodies;
mod businesses;
mod checkpoints;
mod clock;
mod connections;
mod conversations;
mod document;
mod fixture;
mod flows;
mod health;
mod idempotency;
mod keys;
mod money;
mod openai;
mod races;
mod reach;
mod roles;
mod room;
mod runs;
mod second;
mod socket;
mod tools;
mod users;
mod waiting;
