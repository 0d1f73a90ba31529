//! Where `initdb` and `postgres` are.

use std::path::{Path, PathBuf};

use super::install;

const DIRECTORY_VARIABLE: &str = "TOKEN_BROKER_POSTGRES_BIN";

/// Where systems that keep several versions side by side put them: what comes before and after
/// the version.
const VERSIONED: [(&str, &str); 7] = [
    ("/usr/lib/postgresql/", "bin"),          // Debian, Ubuntu
    ("/usr/pgsql-", "bin"),                   // Red Hat with the PostgreSQL project's packages
    ("/usr/libexec/postgresql", ""),          // Alpine
    ("/usr/lib/postgresql", "bin"),           // SUSE
    ("/opt/homebrew/opt/postgresql@", "bin"), // Homebrew
    ("/usr/local/opt/postgresql@", "bin"),    // Homebrew on Intel
    ("/Applications/Postgres.app/Contents/Versions/", "bin"),
];

/// Places without a version, for a `PATH` that lacks them.
const PLAIN: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/usr/local/pgsql/bin"];

/// The two programs, links resolved: they look for their `share` directory beside themselves.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) initdb: PathBuf,
    pub(super) postgres: PathBuf,
}

/// Finds the programs, installing Debian's if there are none and we may.
pub(super) fn programs() -> anyhow::Result<Programs> {
    if let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE) {
        let directory = PathBuf::from(directory);
        return in_directory(&directory).ok_or_else(|| {
            let directory = directory.display();
            anyhow::anyhow!("{DIRECTORY_VARIABLE} is {directory}, which holds no initdb and postgres")
        });
    }
    if let Some(found) = installed() {
        return Ok(found);
    }
    if install::possible() {
        install::debian()?;
        if let Some(found) = installed() {
            return Ok(found);
        }
    }
    anyhow::bail!(
        "no PostgreSQL server found: install one (Debian and Ubuntu: `apt-get install postgresql`, \
         macOS: `brew install postgresql@17`), or set {DIRECTORY_VARIABLE} to the directory of \
         its initdb and postgres"
    )
}

fn installed() -> Option<Programs> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(VERSIONED.iter().flat_map(|(before, after)| versions(before, after)))
        .chain(PLAIN.iter().map(PathBuf::from))
        .find_map(|directory| in_directory(&directory))
}

pub(super) fn in_directory(directory: &Path) -> Option<Programs> {
    let initdb = directory.join("initdb").canonicalize().ok()?;
    let postgres = directory.join("postgres").canonicalize();
    // `PATH` may hold a link to one and not to the other.
    let postgres = postgres.or_else(|_| initdb.with_file_name("postgres").canonicalize());
    let postgres = postgres.ok()?;
    Some(Programs { initdb, postgres })
}

/// The directories `<before><version>/<after>`, newest version first.
fn versions(before: &str, after: &str) -> Vec<PathBuf> {
    let (parent, prefix) = before.rsplit_once('/').expect("each place is an absolute path");
    let mut versions: Vec<u32> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(prefix)?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|version| Path::new(&format!("{before}{version}")).join(after)).collect()
}
