//! A disk that is full, and a file that may not be written: a small disk of memory, mounted as
//! the home and filled to the last byte; and a file that becomes immutable under its server.
//!
//! Both need root, and the second one a file system that has the attribute. Elsewhere these tests
//! say that they tried nothing, and fail where `CI` is set. Without root the page limit of the
//! same name in `http/health.rs` still stands.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};

use super::installation::{Installation, Serving};
use super::upstream::{Say, Upstream};

/// Nine letters.
const LONG: &str = "long text";

/// What takes up the room.
const BALLAST: &str = "ballast";

/// Fills the disk on which that folder lies.
fn fill(folder: &Path) {
    let mut file = File::create(folder.join(BALLAST)).unwrap();
    // Ever smaller pieces, so that not one byte is left.
    for size in [1 << 16, 1 << 12, 1] {
        let piece = vec![0; size];
        let full = loop {
            if let Err(error) = file.write_all(&piece) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
    }
}

/// A home of eight megabytes; unmounted when dropped.
struct SmallDisk {
    home: PathBuf,
}

impl SmallDisk {
    /// `None`: mounting is not allowed here.
    fn mount(place: &Installation) -> Option<Self> {
        let home = place.path(".exile");
        fs::create_dir_all(&home).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs"])
            .arg(&home)
            .output();
        if mount.is_ok_and(|done| done.status.success()) {
            return Some(Self { home });
        }
        not_tried("a full disk", "only root may mount a disk");
        None
    }

    fn fill(&self) {
        fill(&self.home);
    }

    fn make_room(&self) {
        fs::remove_file(self.home.join(BALLAST)).unwrap();
    }

    /// Sets who may read and write the database. SQLite makes the files beside it as it finds it.
    fn permit(&self, mode: u32) {
        for name in ["exile.db", "exile.db-wal", "exile.db-shm"] {
            let file = self.home.join(name);
            if file.exists() {
                fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }

    fn integrity(&self) -> String {
        integrity(&self.home)
    }
}

/// What SQLite itself says of the file.
fn integrity(home: &Path) -> String {
    let file = format!("sqlite://{}", home.join("exile.db").display());
    let check = async {
        let mut connection = SqliteConnection::connect(&file).await.unwrap();
        let said = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection);
        said.await.unwrap()
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check)
}

/// Says so; where `CI` is set, that is a failure.
fn not_tried(what: &str, because: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what} could not be tried: {because}");
    eprintln!("NOT TRIED: {what}, because {because}");
}

/// The files of a database that nobody may write, not even who holds them open. Writable again
/// when dropped.
struct Frozen(Vec<PathBuf>);

impl Frozen {
    /// `None`: it is not allowed here, or the file system has no such thing.
    fn freeze(home: &Path) -> Option<Self> {
        if !refuses_open_files(&home.join("probe")) {
            not_tried("a file that becomes immutable", "it needs root and a disk like ext4");
            return None;
        }
        let frozen = Self(["exile.db", "exile.db-wal"].map(|name| home.join(name)).to_vec());
        chattr("+i", &frozen.0).then_some(frozen)
    }
}

/// Whether an immutable file refuses those who had opened it before; some file systems take the
/// attribute and do not.
fn refuses_open_files(probe: &Path) -> bool {
    let mut open = File::create(probe).unwrap();
    let files = [probe.to_owned()];
    let refuses = chattr("+i", &files) && open.write(b"x").is_err();
    chattr("-i", &files);
    fs::remove_file(probe).unwrap();
    refuses
}

fn chattr(attribute: &str, files: &[PathBuf]) -> bool {
    let done = Command::new("chattr").arg(attribute).args(files).output();
    done.is_ok_and(|done| done.status.success())
}

impl Drop for Frozen {
    fn drop(&mut self) {
        chattr("-i", &self.0);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that a failed test left may still hold it.
        let _ = Command::new("umount").arg("-l").arg(&self.home).status();
    }
}

/// Asks until the server is ready. It looks once a second, and logs every refusal into a pipe that is
/// read at its end alone: who asks without a rest fills it, and the server waits for ever.
fn await_ready(server: &Serving) {
    while server.ask("GET", "/readyz", "").status != 200 {
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_full_disk_refuses_what_it_cannot_keep_and_mends_by_itself() {
    let place = Installation::bare();
    let Some(disk) = SmallDisk::mount(&place) else { return };
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", "{}").json();
    let messages = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
    let say = |text: &str| server.ask("POST", &messages, &json!({ "content": text }).to_string());
    assert_eq!(say("before").status, 200);
    let lists = ["/api/conversations", "/api/runs", "/api/keys", &messages];
    let stored = || lists.map(|list| server.ask("GET", list, "").json());
    let before = stored();

    disk.fill();
    let long = "x".repeat(900_000);
    for refused in [
        say(&long),
        server.ask("POST", "/api/conversations", &json!({ "title": long }).to_string()),
        server.ask(
            "POST",
            "/api/runs",
            &json!({ "graph": "chat", "input": { "messages": long } }).to_string(),
        ),
    ] {
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (503, &json!("store_full")),
            "{refused:?}"
        );
    }
    let ready = server.ask("GET", "/readyz", "");
    assert_eq!((ready.status, &ready.json()["code"]), (503, &json!("not_ready")), "{ready:?}");
    assert_eq!(server.ask("GET", "/healthz", "").status, 200);
    assert_eq!(stored(), before, "reading goes on, and nothing was stored");

    disk.make_room();
    let mended = say(&long);
    assert_eq!(mended.status, 200, "without a restart: {mended:?}");
    await_ready(&server);
    let said = server.ask("GET", &messages, "").json();
    assert_eq!(said["items"].as_array().unwrap().len(), 4, "the refused message left nothing");
    assert_eq!(server.terminate().code, 0);
    assert_eq!(disk.integrity(), "ok");
}

#[test]
fn a_run_in_flight_waits_for_room_and_goes_on() {
    let place = Installation::bare();
    // The disk is full from the moment in which the model is asked.
    let home = place.path(".exile");
    let upstream = Upstream::start(move |_| {
        fill(&home);
        Say::Text(LONG.repeat(100_000).leak())
    });
    let config = format!(
        "models: {{ default: lab/m }}\nproviders: {{ lab: {{ base_url: {}/v1 }} }}\n",
        upstream.url
    );
    let place = place.with("exile.yaml", &config);
    let Some(disk) = SmallDisk::mount(&place) else { return };
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", r#"{"graph": "chat"}"#).json();
    let messages = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());

    let refused = server.ask("POST", &messages, r#"{"content": "hi"}"#);
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (503, &json!("store_full")),
        "{refused:?}"
    );
    assert_eq!(server.ask("GET", "/readyz", "").status, 503);
    let run = server.ask("GET", "/api/runs", "").json()["items"][0].clone();
    assert_eq!(run["status"], "running", "{run}");

    disk.make_room();
    let run = format!("/api/runs/{}", run["id"].as_str().unwrap());
    let stream = server.ask("GET", &format!("{run}/stream"), "");
    assert!(stream.body.contains("event: run.finished"), "it goes on by itself");
    assert_eq!(upstream.count("hi"), 1, "the answer was kept, not asked for again");
    let said = server.ask("GET", &messages, "").json();
    assert_eq!(said["items"][1]["content"].as_str().unwrap().len(), 900_000);
    await_ready(&server);
    assert_eq!(server.terminate().code, 0);
    assert_eq!(disk.integrity(), "ok");
}

#[test]
fn a_file_that_may_not_be_written_is_told_at_the_start_and_is_whole() {
    let place = Installation::bare().held_to_permissions();
    let Some(disk) = SmallDisk::mount(&place) else { return };
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", "{}").json();
    let messages = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
    let said = json!({ "content": "before" }).to_string();
    assert_eq!(server.ask("POST", &messages, &said).status, 200);
    let stored = server.ask("GET", &messages, "").json();
    assert_eq!(server.terminate().code, 0);

    // A file that is open stays writable, so this shows at the next start.
    disk.permit(0o400);
    let refused = place.run(&["serve"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("the database cannot be written"), "{refused:?}");

    disk.permit(0o600);
    let server = place.serve();
    await_ready(&server);
    assert_eq!(server.ask("GET", &messages, "").json(), stored);
    assert_eq!(server.ask("POST", &messages, &said).status, 200);
    assert_eq!(server.terminate().code, 0);
    assert_eq!(disk.integrity(), "ok");
}

#[test]
fn a_file_that_becomes_read_only_under_its_server_refuses_what_it_cannot_keep_and_mends_by_itself()
{
    let place = Installation::bare();
    let home = place.path(".exile");
    let server = place.serve();
    let made = server.ask("POST", "/api/conversations", "{}").json();
    let messages = format!("/api/conversations/{}/messages", made["id"].as_str().unwrap());
    let say = |text: &str| server.ask("POST", &messages, &json!({ "content": text }).to_string());
    assert_eq!(say("before").status, 200);
    let lists = ["/api/conversations", "/api/runs", "/api/keys", &messages];
    let stored = || lists.map(|list| server.ask("GET", list, "").json());
    let before = stored();

    let Some(frozen) = Frozen::freeze(&home) else { return };
    for refused in [
        say("refused"),
        server.ask("POST", "/api/conversations", "{}"),
        server.ask("POST", "/api/runs", r#"{"graph": "chat", "input": {"messages": "refused"}}"#),
    ] {
        let code = refused.json()["code"].clone();
        assert_eq!((refused.status, code), (503, json!("store_full")), "{refused:?}");
    }
    let ready = server.ask("GET", "/readyz", "");
    assert_eq!((ready.status, &ready.json()["code"]), (503, &json!("not_ready")), "{ready:?}");
    assert_eq!(server.ask("GET", "/healthz", "").status, 200);
    assert_eq!(stored(), before, "reading goes on, and nothing was stored");
    // One statement without a transaction: the connection that it opened is not the next one's.
    assert_eq!(server.ask("POST", "/api/conversations", "{}").status, 503);

    drop(frozen);
    let mended = say("after");
    assert_eq!(mended.status, 200, "without a restart: {mended:?}");
    await_ready(&server);
    let said = server.ask("GET", &messages, "").json();
    assert_eq!(said["items"].as_array().unwrap().len(), 4, "the refused message left nothing");
    assert_eq!(server.terminate().code, 0);
    assert_eq!(integrity(&home), "ok");
}
