//! Nothing is left running, or lying about, whoever is killed.

use nix::sys::signal::{Signal, kill};

use super::*;

fn killed(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

fn socket_dir(cluster_url: &str) -> PathBuf {
    let host = cluster_url.split("host=").nth(1).unwrap();
    host.split('&').next().unwrap().into()
}

#[tokio::test]
async fn a_killed_owner_takes_the_server_along_and_the_next_start_works_at_once() {
    let (_scratch, dir) = scratch();
    let mut owner = Owner::of(&dir);
    assert!(PgConnection::connect(&owner.url).await.is_ok());
    owner.kill();
    let cluster = fast(&dir).await;
    assert_ne!(cluster.pid(), owner.server, "not adopted");
    assert!(gone(owner.server) && gone(owner.watchdog));
    assert!(!socket_dir(&owner.url).exists());
    cluster.stop().await.unwrap();

    let mut owner = Owner::of(&dir);
    owner.kill();
    eventually("server and watchdog end", || gone(owner.server) && gone(owner.watchdog));
}

#[tokio::test]
async fn a_server_without_owner_and_watchdog_is_stopped_by_the_next_start() {
    let (_scratch, dir) = scratch();
    let mut owner = Owner::of(&dir);
    // The watchdog's whole family but the server, which is left without anyone.
    let reader = children(owner.watchdog).into_iter().find(|child| *child != owner.server);
    killed(reader.unwrap());
    killed(owner.watchdog);
    owner.kill();
    assert!(!gone(owner.server));
    let cluster = fast(&dir).await;
    assert!(gone(owner.server));
    assert!(!socket_dir(&owner.url).exists());
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn after_everything_was_killed_the_next_start_works_at_once() {
    let (_scratch, dir) = scratch();
    let mut owner = Owner::of(&dir);
    let family = children(owner.watchdog);
    killed(owner.watchdog);
    family.into_iter().for_each(killed);
    owner.kill();
    let cluster = fast(&dir).await;
    assert!(gone(owner.server));
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_session_wide_signal_leaves_the_watchdog_at_work() {
    let mut owner = Owner::of(Path::new(""));
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(Pid::from_raw(owner.watchdog.cast_signed()), signal).unwrap();
    }
    assert!(PgConnection::connect(&owner.url).await.is_ok());
    owner.kill();
    eventually("all is gone", || gone(owner.server) && !owner.dir.exists());
}

#[tokio::test]
async fn a_temporary_cluster_leaves_nothing_behind() {
    let stopped = Cluster::temporary().await.unwrap();
    let (dir, sockets) = (stopped.dir().to_owned(), socket_dir(&stopped.url("postgres")));
    assert!(dir.exists() && sockets.exists());
    stopped.stop().await.unwrap();
    assert!(!dir.exists() && !sockets.exists());

    let dropped = Cluster::temporary().await.unwrap();
    let (dir, pid) = (dropped.dir().to_owned(), dropped.pid());
    drop(dropped);
    eventually("a dropped cluster is gone", || gone(pid) && !dir.exists());

    let mut owner = Owner::of(Path::new(""));
    assert!(owner.dir.exists());
    owner.kill();
    eventually("a killed process's cluster is gone", || gone(owner.server) && !owner.dir.exists());
    eventually("and so are its sockets", || !socket_dir(&owner.url).exists());
}

#[tokio::test]
async fn a_temporary_cluster_nobody_could_remove_is_swept_by_a_later_one() {
    let live = Cluster::temporary().await.unwrap();
    let base = live.dir().parent().unwrap();
    let abandoned = base.join(format!("token-broker-test-abandoned-{}", std::process::id()));
    std::fs::create_dir_all(abandoned.join("data")).unwrap();
    let account = Account::of_the_server().unwrap();
    account.give(&abandoned).unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    for dir in [live.dir(), &abandoned] {
        File::open(dir).unwrap().set_modified(long_ago).unwrap();
    }
    Cluster::temporary().await.unwrap().stop().await.unwrap();
    assert!(!abandoned.exists());
    assert!(live.dir().join("data").exists(), "in use, however old");
    live.stop().await.unwrap();
}

fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).unwrap();
    children.split_whitespace().map(|child| child.parse().unwrap()).collect()
}
