//! The command line.
//!
//! | file | holds |
//! |---|---|
//! | `terminal.rs` | the only way to standard output |
//! | `connection.rs` | the server that holds the home, or one of our own |
//! | `events.rs` | a run's stream of events |
//! | `question.rs` | a run's question to a person, and what answers it |
//! | the rest | one command each |
//!
//! Invariants:
//! - Every command that needs rows talks HTTP, to the server that holds the home or to one that
//!   this process starts for itself on a free port: there is one path to the data.
//! - No command drives runs unless it runs a graph ([`Command::duty`]).
//! - Exit codes: 0 done, 1 failed, 2 usage. With `--json` standard output is JSON alone.
//! - Standard output is for results, standard error for what went wrong and for logs.

mod allocator;
mod backup;
mod chat;
mod checkpoints;
mod connection;
mod doctor;
mod error;
mod events;
mod graph;
mod key;
mod model;
mod question;
mod resume;
mod run;
mod runs;
mod schema;
mod serve;
mod sign_in;
mod terminal;
mod tool;
mod trace;
mod usage;
mod user;
mod validate;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, Flags, Surroundings, Variables};
use crate::process::compose::Duty;
use crate::telemetry::{LogFormat, Telemetry, TelemetryError, TelemetrySettings};
use connection::Connection;
use error::CliError;
use terminal::Terminal;

/// Runs conversations as state graphs.
#[derive(Parser)]
#[command(name = "exile", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What every command takes.
#[derive(Args)]
#[allow(clippy::doc_markdown, reason = "`--help` prints these lines as they are")]
struct Globals {
    /// The folder with the database and the local key [env: EXILE_HOME; default: .exile/ beside
    /// exile.yaml]
    #[arg(long, global = true, value_name = "FOLDER")]
    home: Option<PathBuf>,
    /// The folder with graphs and skills [env: EXILE_GRAPHS; default: graphs/ beside exile.yaml,
    /// else those in the binary]
    #[arg(long, global = true, value_name = "FOLDER")]
    graphs: Option<PathBuf>,
    /// exile.yaml [env: EXILE_CONFIG; default: the nearest one above this folder]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen [env: EXILE_BIND; default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    bind: Option<String>,
    /// How the log on standard error is written [env: EXILE_LOG_FORMAT; default: text]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Print JSON, for machines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Serve HTTP until SIGTERM or Ctrl-C (the default)
    Serve,
    /// Talk to a graph in the terminal
    Chat(chat::Chat),
    /// Run a graph once and print its output
    Run(run::Run),
    /// Check graphs and skills
    Validate(validate::Validate),
    /// Draw a graph
    Graph(graph::Graph),
    /// Print the JSON Schema of a kind of file
    Schema(schema::Schema),
    /// List, show and cancel runs
    #[command(subcommand)]
    Runs(runs::Runs),
    /// Answer questions of a run that waits
    Resume(resume::Resume),
    /// Say what became of calls whose outcome is unknown
    Resolve(resume::Resolve),
    /// Show what a run did, step by step
    Trace(trace::Trace),
    /// List the checkpoints of a run
    Checkpoints(checkpoints::Checkpoints),
    /// Go on from a checkpoint of a run as another run
    Fork(checkpoints::Fork),
    /// Move a run that waits to its graph as it is now
    Migrate(checkpoints::Migrate),
    /// List and call tools
    #[command(subcommand)]
    Tool(tool::Tool),
    /// List models and prove what is said of them
    #[command(subcommand)]
    Model(model::Model),
    Usage(usage::Usage),
    /// Print a link that signs a user in
    SignIn(sign_in::SignIn),
    /// Manage users
    #[command(subcommand)]
    User(user::User),
    /// Manage keys
    #[command(subcommand)]
    Key(key::Key),
    /// Copy everything that is stored to a file, while a server may go on
    Backup(backup::Backup),
    Doctor(doctor::Doctor),
}

/// Reads the arguments, does what they say and gives the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            // Help that cannot be printed cannot be complained about either.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let mut terminal = Terminal::new(cli.globals.json);
    allocator::give_back();
    // Whatever is written from here on is for its owner alone, the database's own files too.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match dispatch(cli, &mut terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.failed(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(cli: Cli, terminal: &mut Terminal) -> Result<(), CliError> {
    let command = cli.command.unwrap_or(Command::Serve);
    if let Command::Schema(schema) = &command {
        return schema.run(terminal);
    }
    let format = cli.globals.log_format;
    let config = config::load(&surroundings(cli.globals)?)?;
    match &command {
        Command::Validate(validate) => return validate.run(&config, terminal),
        Command::Graph(graph) => return graph.run(&config, terminal),
        _ => {}
    }
    let telemetry = Telemetry::start(&telemetry_settings(&config, format, &command)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let trace = telemetry.link();
    let done = runtime.block_on(async {
        match command {
            Command::Serve => serve::run(&config, trace, terminal).await,
            Command::Backup(backup) => backup.run(&config, terminal).await,
            Command::Doctor(doctor) => doctor.run(&config, trace, terminal).await,
            other => {
                let connection = Connection::open(&config, trace, other.duty()).await?;
                let done = other.over(&connection, terminal).await;
                connection.close().await;
                done
            }
        }
    });
    // A task that outlives its server (a reader of standard input) must not hold up the exit.
    runtime.shutdown_background();
    telemetry.shutdown();
    done
}

impl Command {
    /// What this process does while it serves itself: a command that begins a run, or goes on with
    /// one, lets runs go on until it is done; all others leave every run as it is, also those that a
    /// killed server left behind.
    fn duty(&self) -> Duty {
        match self {
            Self::Serve => Duty::Everything,
            Self::Chat(_) | Self::Run(_) | Self::Resume(_) | Self::Resolve(_) | Self::Fork(_) => {
                Duty::Runs
            }
            Self::Validate(_)
            | Self::Graph(_)
            | Self::Schema(_)
            | Self::Runs(_)
            | Self::Trace(_)
            | Self::Checkpoints(_)
            | Self::Migrate(_)
            | Self::Tool(_)
            | Self::Model(_)
            | Self::Usage(_)
            | Self::SignIn(_)
            | Self::User(_)
            | Self::Key(_)
            | Self::Backup(_)
            | Self::Doctor(_) => Duty::Answers,
        }
    }

    /// Commands that talk to a server.
    async fn over(self, connection: &Connection, terminal: &mut Terminal) -> Result<(), CliError> {
        match self {
            Self::Chat(chat) => chat.run(connection, terminal).await,
            Self::Run(run) => run.run(connection, terminal).await,
            Self::Runs(runs) => runs.run(connection, terminal).await,
            Self::Resume(resume) => resume.run(connection, terminal).await,
            Self::Resolve(resolve) => resolve.run(connection, terminal).await,
            Self::Trace(trace) => trace.run(connection, terminal).await,
            Self::Checkpoints(checkpoints) => checkpoints.run(connection, terminal).await,
            Self::Fork(fork) => fork.run(connection, terminal).await,
            Self::Migrate(migrate) => migrate.run(connection, terminal).await,
            Self::Tool(tool) => tool.run(connection, terminal).await,
            Self::Model(model) => model.run(connection, terminal).await,
            Self::Usage(usage) => usage.run(connection, terminal).await,
            Self::SignIn(sign_in) => sign_in.run(connection, terminal).await,
            Self::User(user) => user.run(connection, terminal).await,
            Self::Key(key) => key.run(connection, terminal).await,
            Self::Serve
            | Self::Backup(_)
            | Self::Doctor(_)
            | Self::Graph(_)
            | Self::Validate(_)
            | Self::Schema(_) => Ok(()),
        }
    }
}

fn surroundings(globals: Globals) -> Result<Surroundings, CliError> {
    Ok(Surroundings {
        flags: Flags {
            config: globals.config,
            home: globals.home,
            graphs: globals.graphs,
            bind: globals.bind,
        },
        variables: Variables::of_process(),
        folder: std::env::current_dir()?,
    })
}

/// Commands for people log what goes wrong alone, unless `EXILE_LOG` asks for more.
fn telemetry_settings(
    config: &Config,
    format: Option<LogFormat>,
    command: &Command,
) -> Result<TelemetrySettings, TelemetryError> {
    let get = |name| config.variables.get(name).map(str::to_owned);
    let named = get("EXILE_LOG_FORMAT").filter(|name| !name.is_empty());
    let format = match (format, named) {
        (Some(format), _) => format,
        (None, Some(name)) => LogFormat::parse(&name)?,
        (None, None) => LogFormat::default(),
    };
    let quiet = !matches!(command, Command::Serve);
    Ok(TelemetrySettings {
        log: get("EXILE_LOG").or_else(|| quiet.then(|| "error".to_owned())),
        format,
        otlp_endpoint: get("OTEL_EXPORTER_OTLP_ENDPOINT"),
        otlp_headers: get("OTEL_EXPORTER_OTLP_HEADERS"),
    })
}
