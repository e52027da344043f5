//! The binary as people and machines run it: in a folder of its own, against upstreams in this
//! process. Nothing here reaches beyond the loopback interface.

mod backup;
mod branches;
mod cancels;
mod choice;
mod commands;
mod conversations;
mod disk;
mod edits;
mod holding;
mod hostile;
mod installation;
mod kills;
mod logs;
mod memory;
mod money;
mod openai;
mod otlp;
mod outages;
mod providers;
mod recovery;
mod runs;
mod secrets;
mod serving;
mod shipped;
mod spans;
mod stopping;
mod streams;
mod upstream;
mod waiting;
mod web;
mod wire;
