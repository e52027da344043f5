//! Backup while a server serves, restore, and homes of earlier versions.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::installation::{Installation, Serving};
use super::web::ask;

/// A home as version 0.1.0 left it at migration 4, with the key of the user `ana`: a conversation of
/// two turns, a run that waits for a person, one that the process died in, and a quota.
const HOME_4: &str = include_str!("../../homes/0004.sql");
const ANA: &str = "exk_BS1SRGDScUL25AWJJBqbfQ_PUroeQ_H383TVvzxrkvM";
const WAITS: &str = "/api/runs/run_01a22dca82ba7e3392c4f23e6189496a";
const DIED: &str = "/api/runs/run_01a22dcabc6e78b18e782a16ed3f33d4";

fn all_migrations() -> Migrator {
    let mut all = sqlx::migrate!("../migrations/sqlite");
    all.dangerous_set_table_name("exile_migration");
    all
}

async fn open(database: &Path) -> SqliteConnection {
    exile_server::store::options(database).connect().await.unwrap()
}

/// An installation whose home is as a version left it whose last migration had that number.
async fn home_of(migration: i64) -> Installation {
    let place = Installation::bare().with(".exile/.gitignore", "*\n");
    let mut connection = open(&place.path(".exile/exile.db")).await;
    sqlx::raw_sql(HOME_4).execute(&mut connection).await.unwrap();
    all_migrations().run_to(migration, &mut connection).await.unwrap();
    connection.close().await.unwrap();
    place
}

/// What is in it is there, and goes on.
fn goes_on(server: &Serving) {
    let as_ana =
        |method: &str, path: &str, body: &str| ask(&server.url, method, path, Some(ANA), body);
    let conversations = as_ana("GET", "/api/conversations", "").json();
    let conversation = &conversations["items"][0];
    assert_eq!(conversation["title"], "Trip", "{conversations}");
    let messages = format!("/api/conversations/{}/messages", conversation["id"].as_str().unwrap());
    let said = as_ana("GET", &messages, "").json();
    assert_eq!(said["items"].as_array().unwrap().len(), 4, "{said}");
    assert_eq!(said["items"][0]["content"], "hello 你好");
    let next = as_ana("POST", &messages, r#"{"content": "third"}"#);
    assert_eq!(next.status, 200, "{next:?}");
    let waits = as_ana("GET", WAITS, "").json();
    assert_eq!(waits["status"], "waiting", "{waits}");
    let question = waits["interrupts"][0]["id"].as_str().unwrap();
    let body = json!({ "answers": { question: "blue" } }).to_string();
    let resumed = as_ana("POST", &format!("{WAITS}/resume"), &body);
    assert_eq!(resumed.status, 202, "{resumed:?}");
    for (run, after) in [(WAITS, waits["numbers"][1].as_u64().unwrap()), (DIED, 0)] {
        as_ana("GET", &format!("{run}/stream?after={after}"), "");
        let run = as_ana("GET", run, "").json();
        assert_eq!(run["status"], "finished", "{run}");
    }
    let quotas = server.ask("GET", "/api/quotas", "").json();
    assert!(quotas.to_string().contains("1000/day"), "{quotas}");
}

#[tokio::test]
async fn a_home_of_every_migration_is_opened_and_goes_on() {
    let numbers: Vec<i64> =
        all_migrations().iter().map(|m| m.version).filter(|n| *n >= 4).collect();
    assert!(numbers.len() >= 4, "{numbers:?}");
    for number in numbers {
        let place = home_of(number).await;
        let server = place.serve();
        goes_on(&server);
        let ended = server.terminate();
        assert_eq!(ended.code, 0, "{number}: {ended:?}");
    }
}

#[tokio::test]
async fn a_home_of_a_newer_version_is_refused_and_left_as_it_is() {
    let place = home_of(all_migrations().iter().map(|m| m.version).max().unwrap()).await;
    let database = place.path(".exile/exile.db");
    let mut connection = open(&database).await;
    let newer = "INSERT INTO exile_migration
                     (version, description, success, checksum, execution_time)
                 VALUES (9999, 'of a newer version', 1, x'00', 0)";
    sqlx::raw_sql(newer).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let ended = place.run(&["serve", "--bind", "127.0.0.1:0"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("9999") && ended.err.contains("newer"), "{ended:?}");
}

#[test]
fn a_backup_is_made_while_the_server_serves_and_restored_in_a_new_home() {
    let place = Installation::bare();
    let server = place.serve();
    let conversation = server.ask("POST", "/api/conversations", "{}").json();
    let messages = format!("/api/conversations/{}/messages", conversation["id"].as_str().unwrap());
    let say = |server: &Serving, text: &str| {
        let said = server.ask("POST", &messages, &json!({ "content": text }).to_string());
        assert_eq!(said.status, 200, "{said:?}");
    };
    say(&server, "before");
    let made = place.run(&["backup", "copy.db", "--json"]);
    assert_eq!(made.code, 0, "{made:?}");
    let told: Value = serde_json::from_str(&made.out).unwrap();
    let file = place.path("copy.db").metadata().unwrap();
    assert_eq!((&told["bytes"], file.permissions().mode() & 0o777), (&json!(file.len()), 0o600));
    say(&server, "after");
    assert_eq!(server.terminate().code, 0);
    let again = place.run(&["backup", "copy.db"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("is there already"), "{again:?}");

    for file in place.home_files() {
        if file.0.file_name().unwrap().to_str().unwrap().starts_with("exile.db") {
            fs::remove_file(file.0).unwrap();
        }
    }
    fs::copy(place.path("copy.db"), place.path(".exile/exile.db")).unwrap();
    let server = place.serve();
    let said = server.ask("GET", &messages, "").json();
    assert_eq!(said["items"].as_array().unwrap().len(), 2, "in its own place: {said}");
    drop(server);

    let restored = Installation::bare().with(".exile/.gitignore", "*\n");
    fs::copy(place.path("copy.db"), restored.path(".exile/exile.db")).unwrap();
    let server = restored.serve();
    let said = server.ask("GET", &messages, "").json();
    assert_eq!(said["items"].as_array().unwrap().len(), 2, "{said}");
    assert_eq!(said["items"][0]["content"], "before");
    say(&server, "and on");
}

#[test]
fn what_cannot_be_backed_up_leaves_no_file() {
    let place = Installation::bare();
    let nothing = place.run(&["backup", "copy.db"]);
    assert_eq!(nothing.code, 1, "{nothing:?}");
    assert!(nothing.err.contains("nothing to back up"), "{nothing:?}");
    assert_eq!(place.run(&["user", "add", "ana"]).code, 0);
    let nowhere = place.run(&["backup", "missing/copy.db"]);
    assert_eq!(nowhere.code, 1, "{nowhere:?}");
    let mut bytes = fs::read(place.path(".exile/exile.db")).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0x5a);
    fs::write(place.path(".exile/exile.db"), bytes).unwrap();
    let damaged = place.run(&["backup", "copy.db"]);
    assert_eq!(damaged.code, 1, "{damaged:?}");
    let left = fs::read_dir(place.path(".")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<String> = left.map(|name| name.into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.contains("copy.db")), "{left:?}");
}
