//! Programs that are measured or measured against: killed when they are dropped, however that comes.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};

/// Lines kept of what a program says, for when it fails.
const KEPT: usize = 20;

pub struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts it, and waits for the first line of its output that `ready` finds something in.
    pub async fn start<T: Send + 'static>(
        command: &mut Command,
        ready: impl Fn(&str) -> Option<T> + Send + 'static,
    ) -> anyhow::Result<(Self, T)> {
        let mut process = Self::launch(command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let stderr = process.child.stderr.take().context("it is piped")?;
        let (found, waited) = tokio::sync::oneshot::channel();
        let said = Arc::clone(&process.said);
        std::thread::spawn(move || {
            let mut found = Some(found);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(what) = found.as_ref().and_then(|_| ready(&line)) {
                    found.take().map(|found| found.send(what));
                }
                // A log line is read and forgotten: its writing is the service's cost, its keeping would be ours.
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                if said.len() == KEPT {
                    said.remove(0);
                }
                said.push(line);
            }
        });
        match tokio::time::timeout(Duration::from_secs(60), waited).await {
            Ok(Ok(what)) => Ok((process, what)),
            _ => bail!("it did not become ready:\n{}", process.said()),
        }
    }

    /// Starts it, whatever it says.
    pub fn launch(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
        Ok(Self { child, said: Arc::default() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
