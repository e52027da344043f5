//! The `exile` server: the composition root of engine, nodes and plugins.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`config`] | flags, environment, `.env` and `exile.yaml` |
//! | [`home`], [`local_key`] | the folder with the database, held by one process; its key |
//! | [`compose`] | the composition root: every part made and put together |
//! | [`schema`] | JSON Schemas of the files that people write |
//! | [`library`] | the graphs and skills that serve now, following their files |
//! | [`shipped`] | the graphs inside the binary |
//! | [`telemetry`] | logs and exported spans |
//! | [`store`] | rows |
//! | [`app`] | what every request can reach |
//! | [`transport`] | what all requests share of this machine |
//! | [`serve`], [`routes`] | the socket; one file per noun |
//! | [`access`], [`trace`], [`idempotency`] | what surrounds every route |
//! | [`body`], [`admission`], [`url`], [`input`], [`answers`], [`page`] | what comes in, checked, and the room for it |
//! | [`held`] | an answer's body, and what is kept until it is sent |
//! | [`openai`] | what OpenAI's clients send and read |
//! | [`start`], [`sse`], [`leaving`] | a run begun, waited for, streamed; a caller that leaves |
//! | [`verdict`] | what is sent to a run, and what its engine says to it |
//! | [`waiting`], [`diff`] | what a run waits for; what changed between two of its checkpoints |
//! | [`event_pages`], [`speakers`] | what a run has done so far, a part at a time; what it says, in order |
//! | [`problem`], [`conflict`], [`report`] | what is refused, and why |
//! | [`ledger`] | who spends how much: quotas, costs, usage |
//! | [`metrics`], [`readiness`] | what Prometheus reads; whether the server can do its work |
//! | [`upkeep`] | what a server does by itself |

pub mod access;
pub mod admission;
pub mod answers;
pub mod app;
pub mod body;
pub mod cli;
pub mod compose;
pub mod config;
pub mod conflict;
pub mod diff;
pub mod event_pages;
pub mod held;
pub mod home;
pub mod idempotency;
pub mod input;
pub mod leaving;
pub mod ledger;
pub mod library;
pub mod local_key;
pub mod metrics;
pub mod openai;
pub mod page;
pub mod problem;
pub mod readiness;
pub mod report;
pub mod routes;
pub mod schema;
pub mod serve;
pub mod shipped;
pub mod speakers;
pub mod sse;
pub mod start;
pub mod store;
pub mod telemetry;
pub mod trace;
pub mod transport;
pub mod upkeep;
pub mod url;
pub mod verdict;
pub mod waiting;
