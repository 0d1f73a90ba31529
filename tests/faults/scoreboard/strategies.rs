//! How a refresh token is kept elsewhere, in a few lines each, over real HTTP and real files. Where a trait was in doubt, the
//! strategy got the better one: both hosts share one file or store, writes are atomic, what another host saved is noticed.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, time::sleep};

use super::schedule::{Caller, Killed, Moment};

#[derive(Serialize, Deserialize)]
pub(super) struct Pair {
    pub access_token: String,
    refresh_token: String,
}

/// Where the pair is kept, and whom to ask for the next: the same for both hosts.
pub(super) struct Home {
    pub file: PathBuf,
    /// Of JFrog's tokens.
    pub jfrog: String,
    pub http: reqwest::Client,
}

impl Home {
    pub(super) fn read(&self) -> anyhow::Result<Pair> {
        Ok(serde_json::from_slice(&fs::read(&self.file)?)?)
    }

    /// Spends the refresh token. Any 2xx is an answer, as for `curl --fail`.
    async fn send(&self, pair: &Pair) -> anyhow::Result<Vec<u8>> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", &pair.refresh_token)];
        let request = self.http.post(&self.jfrog).bearer_auth(&pair.access_token).form(&form);
        Ok(request.send().await?.error_for_status()?.bytes().await?.to_vec())
    }

    /// The same, and only a whole pair is an answer.
    async fn ask(&self, pair: &Pair) -> anyhow::Result<Pair> {
        serde_json::from_slice(&self.send(pair).await?).context("not a pair")
    }

    /// All or nothing, as a database does it. Whatever is there is overwritten.
    async fn replace(&self, pair: &Pair, caller: Caller) -> anyhow::Result<()> {
        let new = self.file.with_extension("new");
        fs::write(&new, serde_json::to_vec(pair)?)?;
        caller.reaches(Moment::Saving).await?;
        fs::rename(new, &self.file)?;
        Ok(caller.reaches(Moment::Saved).await?)
    }
}

pub(super) trait Strategy: Default + Send + Sync {
    /// One refresh by one host.
    fn refresh(&self, home: &Home, caller: Caller) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// `curl --fail -o pair.json` in a cron job: asks, then writes what came over what was there. The next run is the only retry.
#[derive(Default)]
pub(super) struct Cron;

impl Strategy for Cron {
    async fn refresh(&self, home: &Home, caller: Caller) -> anyhow::Result<()> {
        let answer = home.send(&home.read()?).await?;
        caller.reaches(Moment::Answered).await?;
        let (first, rest) = answer.split_at(answer.len() / 2);
        let mut file = File::create(&home.file)?;
        file.write_all(first)?;
        caller.reaches(Moment::Saving).await?;
        file.write_all(rest)?;
        Ok(caller.reaches(Moment::Saved).await?)
    }
}

/// JFrog's CLI (`utils/config/tokenrefresh.go`): a file lock between processes, the file read again under it, and up to three
/// blind retries with the same refresh token. Its last resort, a user's name and password, does not exist under SSO.
#[derive(Default)]
pub(super) struct FileLock;

impl Strategy for FileLock {
    async fn refresh(&self, home: &Home, caller: Caller) -> anyhow::Result<()> {
        let seen = home.read()?.access_token;
        // Dropped by every return, as the kernel drops a dead process's lock.
        let lock = File::create(home.file.with_extension("lock"))?;
        while lock.try_lock().is_err() {
            sleep(Duration::from_millis(10)).await;
        }
        let pair = home.read()?;
        if pair.access_token != seen {
            return Ok(());
        }
        let mut answer = home.ask(&pair).await;
        for _ in 0..3 {
            if answer.is_err() {
                answer = home.ask(&pair).await;
            }
        }
        caller.reaches(Moment::Answered).await?;
        home.replace(&answer?, caller).await
    }
}

/// The Artifactory plugin for HashiCorp Vault (`path_user_token_create.go`): a mutex in the process, refresh, then store. The
/// other replica has a mutex of its own. (The plugin takes its mutex for reading only; here it excludes.)
#[derive(Default)]
pub(super) struct InProcess(Mutex<()>);

impl Strategy for InProcess {
    async fn refresh(&self, home: &Home, caller: Caller) -> anyhow::Result<()> {
        let _held = self.0.lock().await;
        let pair = home.ask(&home.read()?).await?;
        caller.reaches(Moment::Answered).await?;
        home.replace(&pair, caller).await
    }
}

/// Nango (`connections/credentials/refresh.ts`): a lock that expires after ten seconds, and no fencing. Who stalls longer has
/// lost it and does not know; it saves all the same, and releases what is another's by then.
#[derive(Default)]
pub(super) struct Expiring;

impl Expiring {
    /// Ten seconds, divided by 30: so do the tests' timeout for JFrog (2 s for 60) and lease (3 s for 90) relate to the real ones.
    const LOCKED_FOR: Duration = Duration::from_millis(333);

    async fn acquire(lock: &PathBuf) -> anyhow::Result<()> {
        let asked = Instant::now();
        while File::options().write(true).create_new(true).open(lock).is_err() {
            ensure!(asked.elapsed() < Self::LOCKED_FOR.mul_f64(1.2), "another refresh is running");
            let age = fs::metadata(lock).and_then(|there| there.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > Self::LOCKED_FOR) {
                drop(fs::remove_file(lock));
            } else {
                sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    async fn under_lock(home: &Home, seen: &str, caller: Caller) -> anyhow::Result<()> {
        let pair = home.read()?;
        if pair.access_token != seen {
            return Ok(());
        }
        let pair = home.ask(&pair).await?;
        caller.reaches(Moment::Answered).await?;
        home.replace(&pair, caller).await
    }
}

impl Strategy for Expiring {
    async fn refresh(&self, home: &Home, caller: Caller) -> anyhow::Result<()> {
        let lock = home.file.with_extension("lock");
        let seen = home.read()?.access_token;
        Self::acquire(&lock).await?;
        let done = Self::under_lock(home, &seen, caller).await;
        // The dead release nothing; the living release whatever is there.
        if !done.as_ref().is_err_and(|error| error.is::<Killed>()) {
            drop(fs::remove_file(lock));
        }
        done
    }
}
