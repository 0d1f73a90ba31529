//! A `postmaster.pid` that is not true does not fool the start.

use super::*;

/// A directory whose last server was killed along with everything, its pid file naming `pid`.
async fn started_beside(pid: u32) {
    let (_scratch, dir) = scratch();
    let cluster = fast(&dir).await;
    let pid_file = dir.join("data/pgdata/postmaster.pid");
    let before = std::fs::read_to_string(&pid_file).unwrap();
    let (_, rest) = before.split_once('\n').unwrap();
    let stale = format!("{pid}\n{rest}");
    cluster.stop().await.unwrap();
    std::fs::write(&pid_file, stale).unwrap();
    Account::of_the_server().unwrap().give(&pid_file).unwrap();
    let cluster = fast(&dir).await;
    assert_ne!(cluster.pid(), pid);
    cluster.stop().await.unwrap();
}

/// A process of the server's own account, which Postgres itself would take for a server.
fn sleeping() -> Child {
    let account = Account::of_the_server().unwrap();
    account.command("sleep").arg("60").spawn().unwrap()
}

#[tokio::test]
async fn of_a_dead_process() {
    let mut process = sleeping();
    process.kill().unwrap();
    process.wait().unwrap();
    started_beside(process.id()).await;
}

#[tokio::test]
async fn of_a_zombie() {
    let mut process = sleeping();
    process.kill().unwrap();
    eventually("it is a zombie", || gone(process.id()));
    started_beside(process.id()).await;
    process.wait().unwrap();
}

#[tokio::test]
async fn of_a_process_that_reuses_the_id() {
    let mut process = sleeping();
    started_beside(process.id()).await;
    assert!(process.try_wait().unwrap().is_none(), "left in peace");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[tokio::test]
async fn copied_along_with_a_running_cluster() {
    let (scratch, dir) = scratch();
    let original = fast(&dir).await;
    let copy = scratch.path().join("copy");
    let copied = Command::new("cp").arg("-a").args([&dir, &copy]).status().unwrap();
    assert!(copied.success());
    fast(&copy).await.stop().await.unwrap();
    assert!(!original.has_database("still there").await.unwrap());
    original.stop().await.unwrap();
}
