//! The shape of the source tree: what a reader may rely on.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From the bottom up; a module uses only what stands in a line above it. Siblings in one line never meet.
const LAYERS: &[&[&str]] = &[
    &["secret", "names", "actor", "outbound", "telemetry", "fault"],
    &["store", "jfrog", "crypto", "journal", "audit"],
    &["identity"],
    &["broker"],
    &["api"],
    &["config", "dev"],
    &["cli"],
];

/// Words of secret.rs may be used by names.rs' neighbours too: the bottom line has no order of its own.
const BOTTOM: usize = 0;

/// Crates that live in some modules only.
const HOMES: &[(&str, &[&str])] = &[
    ("sqlx", &["store", "dev"]),
    ("axum", &["api", "dev"]),
    ("axum_server", &["api", "dev"]),
    ("utoipa", &["api"]),
    ("clap", &["config", "cli"]),
    ("jsonwebtoken", &["identity", "dev"]),
    ("aws_lc_rs", &["crypto", "dev"]),
];

fn files(dir: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                dirs.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&entry).expect("a source file");
                found.push((entry, text));
            }
        }
    }
    assert!(found.len() > 2, "{dir} has files");
    found
}

/// The top-level module a file of `src` belongs to.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("below src");
    let first = inside.components().next().expect("a file").as_os_str().to_str().expect("UTF-8");
    first.trim_end_matches(".rs").to_owned()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|line| line.contains(&module))
}

/// The modules that `text` names as `crate::module`, in braces too.
fn used(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            // The first word of each item at the group's own depth.
            let (mut depth, mut word, mut fresh) = (0, String::new(), true);
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => fresh = true,
                    c if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') => word.push(c),
                    _ if !word.is_empty() => {
                        used.push(std::mem::take(&mut word));
                        fresh = false;
                    }
                    _ => {}
                }
            }
            used.extend((!word.is_empty()).then_some(word));
        } else {
            used.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    used
}

#[test]
fn imports_point_down() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (path, text) in files("src") {
        let own = module(&path);
        let Some(own_layer) = layer(&own) else { continue };
        for other in used(&text) {
            let Some(other_layer) = layer(&other) else { continue };
            seen += 1;
            let sibling = other_layer == own_layer && other != own && own_layer != BOTTOM;
            if other_layer > own_layer || sibling {
                wrong.push(format!("{} uses crate::{other}", path.display()));
            }
        }
    }
    assert!(seen > 100, "it found imports: {seen}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_module_has_its_place_in_the_layers() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("lib.rs");
    let modules: Vec<&str> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.len() > 10);
    for module in modules {
        assert!(layer(module).is_some(), "{module} has no layer");
    }
}

#[test]
fn crates_stay_at_home() {
    let mut wrong = Vec::new();
    for (path, text) in files("src") {
        let own = module(&path);
        for (name, homes) in HOMES {
            let used = text.contains(&format!("use {name}::"))
                || text.contains(&format!("{name}::")) && !text.contains(&format!("_{name}::"));
            if used && !homes.contains(&own.as_str()) {
                wrong.push(format!("{} uses {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_have_one_subject() {
    let long: Vec<String> = ["src", "tests"]
        .into_iter()
        .flat_map(files)
        .filter(|(_, text)| text.lines().count() > 400)
        .map(|(path, text)| format!("{} has {} lines", path.display(), text.lines().count()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn postgres_is_the_clock() {
    // The simulator has a clock of its own; JFrog's Retry-After as a date, and the times in a JWT, are compared with ours;
    // a request to KMS is signed with the time.
    let allowed = ["dev", "jfrog", "identity", "crypto"];
    let wrong: Vec<_> = files("src")
        .into_iter()
        .filter(|(path, text)| {
            !allowed.contains(&module(path).as_str()) && (text.contains("SystemTime::now") || text.contains("now_utc("))
        })
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_dependency_says_why_it_is_there() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("Cargo.toml");
    let (_, dependencies) = manifest.split_once("[dependencies]").expect("dependencies");
    let (dependencies, _) = dependencies.split_once("[lints").expect("what follows them");
    let silent: Vec<&str> = dependencies.lines().filter(|line| line.contains(" = ") && !line.contains(" # ")).collect();
    assert!(silent.is_empty(), "{silent:#?}");
}
