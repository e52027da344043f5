//! The published schemas are those of the types.

use std::path::Path;

use exile_server::process::schema::Subject;

/// `UPDATE=1` rewrites them.
#[test]
fn the_published_schemas_are_generated_from_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../graphs/schema");
    let update = std::env::var_os("UPDATE").is_some();
    for subject in Subject::ALL {
        let path = folder.join(format!("{}.json", subject.name()));
        let text = subject.text();
        if update {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == text, "{} is not up to date: run with UPDATE=1", path.display());
    }
}
