//! Following a folder, with a watch of the test's own; and what the log says.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use exile_engine::bundle::{Catalog, Source};
use exile_engine::library::{Files, Library};
use exile_engine::limits::FileLimits;
use exile_engine::model::Models;
use exile_engine::tool::ToolRegistry;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::changes::{Change, between};
use super::{Current, Follower, watching};

fn catalog() -> Catalog {
    Catalog {
        kinds: exile_nodes::kinds::all(),
        tools: Arc::new(ToolRegistry::default()),
        models: Arc::new(Models::default()),
        limits: Arc::default(),
    }
}

fn graph(value: u32) -> String {
    format!(
        "graph: line\nmode: linear\nstate: {{ n: {{ type: number }} }}\n\
         nodes:\n  a: {{ kind: set, set: {{ n: {value} }} }}\norder: [a]\n"
    )
}

/// Follows a folder that holds `graph(1)`.
fn following<W, G>(watch: W) -> (TempDir, Current)
where
    W: Fn(&Path, &Arc<Notify>) -> notify::Result<G> + Clone + Send + 'static,
    G: Send + 'static,
{
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("line.yaml"), graph(1)).unwrap();
    let current = Current::new(Library::load(folder.path(), &catalog()));
    let follower = Follower {
        current: current.clone(),
        folder: folder.path().to_owned(),
        catalog: catalog(),
        watch,
    };
    tokio::spawn(follower.follow());
    (folder, current)
}

fn served(current: &Current) -> String {
    current.now().bundle("line", None).unwrap().graph.text
}

// Time moves by itself as soon as nothing else does, so that no test waits.
#[tokio::test(start_paused = true)]
async fn a_folder_that_cannot_be_watched_is_read_again_and_again() {
    let (folder, current) =
        following(|_, _| notify::Result::<()>::Err(notify::Error::generic("no")));
    let mut changed = current.0.subscribe();
    for value in 2..5 {
        fs::write(folder.path().join("line.yaml"), graph(value)).unwrap();
        changed.changed().await.unwrap();
        assert_eq!(served(&current), graph(value));
    }
}

#[tokio::test]
async fn what_a_start_had_no_time_for_is_looked_at_in_the_first_turn() {
    let folder = TempDir::new().unwrap();
    let long = format!("{}# {}\n", graph(1), "x".repeat(200_000));
    fs::write(folder.path().join("line.yaml"), &long).unwrap();
    let files = Files::read(folder.path(), &FileLimits::default());
    let current = Current::new(Library::begin(files, &catalog()));
    assert!(current.now().bundle("line", None).is_none() && current.now().is_unfinished());
    let mut changed = current.0.subscribe();
    let follower = Follower {
        current: current.clone(),
        folder: folder.path().to_owned(),
        catalog: catalog(),
        watch: watching::watch,
    };
    tokio::spawn(follower.follow());
    changed.changed().await.unwrap();
    assert_eq!(served(&current), long);
}

#[tokio::test]
async fn what_is_told_during_a_reload_makes_another_one() {
    let (turns, mut turned) = mpsc::unbounded_channel();
    let (folder, current) = following(move |folder, told| {
        let turn = fs::read_dir(folder).unwrap().count();
        turns.send((turn, told.clone())).unwrap();
        if turn == 2 {
            // The second turn is being taken, and something is told already.
            fs::write(folder.join("third.yaml"), "").unwrap();
            told.notify_one();
        }
        Ok(())
    });
    let mut next = async || timeout(Duration::from_secs(20), turned.recv()).await.unwrap().unwrap();
    let (_, told) = next().await;
    fs::write(folder.path().join("second.yaml"), "").unwrap();
    told.notify_one();
    while next().await.0 < 3 {}
    assert_eq!(served(&current), graph(1));
}

#[tokio::test]
async fn a_watch_tells_of_files_and_of_the_folder_itself() {
    let place = TempDir::new().unwrap();
    let graphs = place.path().join("graphs");
    let (file, skills) = (graphs.join("a.yaml"), graphs.join("skills"));
    let (hidden, old) = (place.path().join(".a.yaml.tmp"), place.path().join("old"));
    fs::write(&hidden, "x").unwrap();
    let changes: [(&str, &dyn Fn() -> std::io::Result<()>); 7] = [
        ("the folder", &|| fs::create_dir(&graphs)),
        ("a file moved here", &|| fs::rename(&hidden, &file)),
        ("a file written", &|| fs::write(&file, "y")),
        ("the skills", &|| fs::create_dir(&skills)),
        ("a skill", &|| fs::write(skills.join("s.yaml"), "x")),
        ("a file removed", &|| fs::remove_file(&file)),
        ("the folder moved", &|| fs::rename(&graphs, &old)),
    ];
    for (what, change) in changes {
        let told = Arc::new(Notify::new());
        let _watcher = watching::watch(&graphs, &told).unwrap();
        change().unwrap();
        timeout(Duration::from_secs(20), told.notified()).await.expect(what);
    }
}

#[tokio::test]
async fn readers_and_neighbours_tell_nothing() {
    let place = TempDir::new().unwrap();
    let (graphs, neighbour) = (place.path().join("graphs"), place.path().join("neighbour"));
    let file = graphs.join("a.yaml");
    fs::create_dir(&graphs).unwrap();
    fs::write(&file, "x").unwrap();
    let (events, mut seen) = mpsc::unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        events.send(event.unwrap()).unwrap();
    })
    .unwrap();
    for folder in [place.path(), &graphs] {
        notify::Watcher::watch(&mut watcher, folder, notify::RecursiveMode::NonRecursive).unwrap();
    }
    assert_eq!(Files::read(&graphs, &FileLimits::default()).graphs.len(), 1);
    fs::write(&neighbour, "x").unwrap();
    fs::write(&file, "y").unwrap();
    // Events keep their order: what the reader and the neighbour caused comes before the edit.
    let mut neighbours = 0;
    loop {
        let event = timeout(Duration::from_secs(20), seen.recv()).await.unwrap().unwrap();
        if watching::concerns(&event, &graphs, place.path()) {
            assert_eq!(event.paths, std::slice::from_ref(&file), "{event:?}");
            break;
        }
        neighbours += usize::from(event.paths.contains(&neighbour));
    }
    assert!(neighbours > 0);
}

/// Path and text of every file.
type State<'s> = &'s [(&'s str, &'s str)];

fn files(texts: State<'_>) -> Files {
    let source =
        |(path, text): &(&str, &str)| Source { path: (*path).into(), text: (*text).into() };
    let (skills, graphs) = texts.iter().map(source).partition(|s| s.path.starts_with("skills/"));
    Files { graphs, skills, unread: Vec::new() }
}

#[test]
fn the_log_names_what_an_edit_did() {
    let good = |line: &str| Change::Good(line.into());
    let bad = |line: &str| Change::Bad(line.into());
    let (first, second) = (graph(1), graph(2));
    let uses = "graph: talk\nmode: linear\nstate: { messages: { reduce: messages } }\n\
                nodes:\n  a: { kind: agent, skill: s, tools: [] }\norder: [a]\n";
    let kind = first.replace("kind: set", "kind: sett");
    let unknown = "line.yaml:5:14: error[unknown_kind]: no kind of node is named `sett`; \
                   did you mean `set`?";
    let steps: &[(State<'_>, &[Change])] = &[
        (&[("line.yaml", &first)], &[good("graph `line` serves as edited")]),
        (&[("line.yaml", &first)], &[]),
        (
            &[("line.yaml", &kind)],
            &[bad(&format!("graph `line` goes on with its last good version: {unknown}"))],
        ),
        (&[("line.yaml", &kind)], &[]),
        (&[("line.yaml", &first)], &[good("graph `line` serves as edited")]),
        (&[("line.yaml", &second)], &[good("graph `line` serves as edited")]),
        (&[("moved.yaml", &second)], &[good("graph `line` serves as edited")]),
        (&[], &[good("graph `line` is gone, as its file is")]),
        (&[("line.yaml", &kind)], &[bad(&format!("graph `line` does not serve: {unknown}"))]),
        (
            &[("talk.yaml", uses), ("skills/s.yaml", "skill: s\nsystem: A.\n")],
            &[
                good("skill `s` serves as edited"),
                good("graph `talk` serves as edited"),
                good("graph `line` is gone, as its file is"),
            ],
        ),
        (
            &[("talk.yaml", uses), ("skills/s.yaml", "skill: s\nsystem: B.\n")],
            &[good("skill `s` serves as edited"), good("graph `talk` serves as edited")],
        ),
    ];
    let mut library = Library::default();
    for (state, expected) in steps {
        let after = library.reload(files(state), &catalog());
        assert_eq!(between(&library, &after), *expected, "{state:?}");
        library = after;
    }
}
