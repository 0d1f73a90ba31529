//! The launcher against real servers, and against everything that can be killed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod killed;
mod stale;

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, Uid, getpgid};

use super::*;

/// A directory the server's account can pass through; the cluster goes into `pg` in it.
fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let pg = dir.path().join("pg");
    (dir, pg)
}

/// A directory only we can enter.
fn closed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    dir
}

async fn fast(dir: &Path) -> Cluster {
    Cluster::start(dir, Durability::Fast).await.unwrap()
}

/// Whether the process has ended (a zombie has).
fn gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim();
    state.is_empty() || state.starts_with('Z')
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 10 seconds: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// This test binary again, running only the ignored test `name` with `argument`.
fn re_executed(name: &str, argument: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "--test-threads=1"]);
    command.arg(format!("dev::postgres::tests::{name}"));
    command.env("TOKEN_BROKER_TEST_ARGUMENT", argument);
    command
}

fn argument() -> PathBuf {
    std::env::var_os("TOKEN_BROKER_TEST_ARGUMENT").unwrap().into()
}

/// Another process that started a cluster, and what it says of it.
struct Owner {
    process: Child,
    server: u32,
    watchdog: u32,
    url: String,
    dir: PathBuf,
}

impl Owner {
    /// In `dir`, or temporary if that is empty.
    fn of(dir: &Path) -> Self {
        let mut command = re_executed("owner", dir);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.map(Result::unwrap).find(|line| line.contains("RUNNING")).unwrap();
        let words: Vec<&str> = line.split(' ').skip_while(|word| *word != "RUNNING").collect();
        Self {
            process,
            server: words[1].parse().unwrap(),
            watchdog: words[2].parse().unwrap(),
            url: words[3].into(),
            dir: words[4].into(),
        }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test]
#[ignore = "the other process of the tests about killing"]
async fn owner() {
    let dir = argument();
    let cluster = if dir.as_os_str().is_empty() { Cluster::temporary().await.unwrap() } else { fast(&dir).await };
    let watchdog = cluster.server.watchdog_pid();
    let (url, dir) = (cluster.url("postgres"), cluster.dir().display());
    println!("RUNNING {} {watchdog} {url} {dir}", cluster.pid());
    std::thread::sleep(Duration::from_secs(60));
}

#[tokio::test]
async fn data_are_kept_from_one_start_to_the_next() {
    let (_scratch, dir) = scratch();
    for durability in [Durability::Durable, Durability::Fast] {
        let before = Instant::now();
        let cluster = Cluster::start(&dir, durability).await.unwrap();
        let started = before.elapsed();
        assert_eq!(cluster.has_database("kept").await.unwrap(), durability == Durability::Fast);
        if durability == Durability::Durable {
            cluster.create_database("kept", None).await.unwrap();
        }
        let pid = cluster.pid();
        let before = Instant::now();
        cluster.stop().await.unwrap();
        println!("{durability:?}: start {started:?}, stop {:?}", before.elapsed());
        assert!(gone(pid));
    }
}

#[tokio::test]
async fn a_second_start_in_the_same_directory_is_refused() {
    let (_scratch, dir) = scratch();
    let cluster = fast(&dir).await;
    let refusal = Cluster::start(&dir, Durability::Fast).await.unwrap_err();
    assert!(refusal.to_string().starts_with("another token-broker is using "), "{refusal}");
    assert!(!cluster.has_database("still there").await.unwrap());
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_half_made_cluster_is_discarded() {
    let (_scratch, dir) = scratch();
    std::fs::create_dir_all(dir.join("data.new/pgdata")).unwrap();
    std::fs::write(dir.join("data.new/pgdata/PG_VERSION"), "3").unwrap();
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o711)).unwrap();
    fast(&dir).await.stop().await.unwrap();
    assert!(!dir.join("data.new").exists());
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let (_scratch, dir) = scratch();
    fast(&dir).await.stop().await.unwrap();
    std::fs::write(dir.join("data/pgdata/PG_VERSION"), "9.6\n").unwrap();
    let refusal = Cluster::start(&dir, Durability::Fast).await.unwrap_err().to_string();
    assert!(refusal.starts_with("Postgres did not start; "), "{refusal}");
    assert!(refusal.contains("incompatible with server"), "{refusal}");
    println!("{refusal}");
}

#[tokio::test]
async fn databases_of_any_name_are_created_copied_and_reached() {
    let cluster = Cluster::temporary().await.unwrap();
    let name = "it's a \"näme\" /?#&%+@:=";
    cluster.create_database(name, None).await.unwrap();
    cluster.create_database("copy", Some(name)).await.unwrap();
    let twice = cluster.create_database("copy", None).await.unwrap_err();
    assert!(format!("{twice:#}").contains("already exists"), "{twice:#}");

    let mut connection = PgConnection::connect(&cluster.url(name)).await.unwrap();
    let sqlx_sees: String = sqlx::query_scalar("select current_database()::text").fetch_one(&mut connection).await.unwrap();
    assert_eq!(sqlx_sees, name);
    let psql = Command::new("psql").args([&cluster.url(name), "-Atc", "select current_database()"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&psql.stdout).trim_end(), name);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn only_the_password_opens_and_only_over_the_socket() {
    let cluster = Cluster::temporary().await.unwrap();
    let wrong = cluster.url("postgres").replacen("postgres:", "postgres:0", 2);
    assert!(PgConnection::connect(&wrong).await.is_err());
    let mut connection = PgConnection::connect(&cluster.url("postgres")).await.unwrap();
    let settings: Vec<String> = sqlx::query_scalar(
        "select name || '=' || setting from pg_settings where name in \
         ('fsync', 'full_page_writes', 'listen_addresses', 'max_connections', 'synchronous_commit') \
         order by name",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    insta::assert_snapshot!(settings.join(" "), @"fsync=off full_page_writes=off listen_addresses= max_connections=200 synchronous_commit=on");
}

#[test]
fn a_cluster_outlives_the_runtime_it_was_started_in() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let cluster = runtime().block_on(Cluster::temporary()).unwrap();
    assert!(!runtime().block_on(cluster.has_database("none")).unwrap());
    runtime().block_on(cluster.stop()).unwrap();
}

#[tokio::test]
async fn the_server_runs_in_its_own_process_group_and_never_as_root() {
    let cluster = Cluster::temporary().await.unwrap();
    let server = Pid::from_raw(cluster.pid().cast_signed());
    assert_ne!(getpgid(Some(server)).unwrap(), getpgid(None).unwrap());
    let process = Path::new("/proc").join(server.to_string());
    assert_ne!(process.metadata().unwrap().uid(), 0);
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    if Uid::effective().is_root() {
        let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        assert_eq!(groups.trim(), "", "root's groups are dropped");
    }
    cluster.stop().await.unwrap();
}

#[test]
fn an_ordinary_user_needs_no_root() {
    if !Uid::effective().is_root() {
        return; // Then all tests are this one.
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let scratch = scratch().0;
    std::os::unix::fs::chown(scratch.path(), Some(nobody.uid.as_raw()), None).unwrap();
    let mut command = re_executed("ordinary_user", &scratch.path().join("pg"));
    command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
            assert!(said.contains("1 passed"), "{said}");
        }
        Err(error) => eprintln!("SKIPPED: nobody cannot run the test binary: {error}"),
    }
}

#[tokio::test]
#[ignore = "run by an_ordinary_user_needs_no_root, as that user"]
async fn ordinary_user() {
    let me = Uid::effective();
    assert!(!me.is_root());
    for existed in [false, true] {
        let cluster = fast(&argument()).await;
        assert_eq!(cluster.has_database("kept").await.unwrap(), existed);
        if !existed {
            cluster.create_database("kept", None).await.unwrap();
        }
        let process = format!("/proc/{}", cluster.pid());
        assert_eq!(Path::new(&process).metadata().unwrap().uid(), me.as_raw());
        cluster.stop().await.unwrap();
    }
    Cluster::temporary().await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_directory_the_server_cannot_enter_is_refused_plainly() {
    if !Uid::effective().is_root() {
        return; // The server's account is ours.
    }
    let closed = closed();
    let dir = closed.path().join("pg");
    let refusal = Cluster::start(&dir, Durability::Fast).await.unwrap_err();
    assert!(refusal.to_string().contains(", which cannot enter "), "{refusal}");
}

#[test]
fn the_default_directory_is_here_unless_the_server_cannot_get_here() {
    if !Uid::effective().is_root() {
        return; // The server's account is ours.
    }
    let (open, closed) = (scratch().0, closed());
    for (here, expected) in [(&open, ".dev"), (&closed, "/var/tmp/token-broker-dev")] {
        let mut command = re_executed("default_directory", Path::new(expected));
        let output = command.current_dir(here.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
#[ignore = "run by the test of the default directory, elsewhere"]
fn default_directory() {
    assert_eq!(default_dev_dir(), argument());
}

#[test]
fn programs_are_found_through_links() {
    let found = find::programs().unwrap();
    let links = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&found.initdb, links.path().join("initdb")).unwrap();
    let again = find::in_directory(links.path()).unwrap();
    assert_eq!(again.postgres, found.postgres);
    assert!(find::in_directory(&links.path().join("none")).is_none());
}

#[test]
fn debian_is_told_to_make_no_cluster_of_its_own() {
    let no = "create_main_cluster = false\n";
    assert_eq!(install::without_main_cluster(""), no);
    assert_eq!(install::without_main_cluster(no), no);
    assert_eq!(
        install::without_main_cluster("#create_main_cluster = true\ncreate_main_cluster=true\nssl = on"),
        format!("#create_main_cluster = true\nssl = on\n{no}")
    );
}
