//! The `exile` server: the composition root of engine, nodes and plugins.
//!
//! Each module may name those below it in this table, and none above.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`process`] | the composition root, the socket, the graphs that ship |
//! | [`openai`] | `/v1`: what OpenAI's clients send and read |
//! | [`api`] | `/api`, one noun a file |
//! | [`http`] | what surrounds every route: access, bodies, idempotency, problems |
//! | [`jobs`] | what a server does by itself |
//! | [`runs`] | what every surface shares of runs |
//! | [`library`] | the graphs and skills that serve now, following their files |
//! | [`config`] | flags, environment, `.env` and `exile.yaml`; the home and its key |
//! | [`usage`] | who spends how much: quotas, costs, usage |
//! | [`telemetry`] | logs, exported spans, and what Prometheus reads |
//! | [`store`] | rows |

pub mod api;
pub mod cli;
pub mod config;
pub mod http;
pub mod jobs;
pub mod library;
pub mod openai;
pub mod process;
pub mod runs;
pub mod store;
pub mod telemetry;
pub mod usage;
