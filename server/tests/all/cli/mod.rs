//! The binary as people and machines run it: in a folder of its own, against upstreams in this
//! process. Nothing here reaches beyond the loopback interface.

mod branches;
mod commands;
mod conversations;
mod disk;
mod hostile;
mod installation;
mod kills;
mod otlp;
mod outages;
mod recovery;
mod secrets;
mod serving;
mod shipped;
mod spans;
mod upstream;
mod waiting;
mod web;
