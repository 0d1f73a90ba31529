//! A disk so small that a test can fill it. Only root can mount one: others see the tests that need it skipped.

use std::{fs::OpenOptions, io::Write, path::Path, path::PathBuf, process::Command};

pub(super) struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Over this directory; what is in it is hidden meanwhile. `None`, and said loudly, where we may not.
    pub(super) fn over(dir: &Path, mebibytes: u32) -> Option<Self> {
        let options = format!("size={mebibytes}m,mode=711");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { dir: dir.to_owned() });
        }
        eprintln!("SKIPPED: no full disk was tested, because mounting a tmpfs needs root: run the tests as root to have it");
        None
    }

    /// Until nothing more can be written.
    pub(super) fn fill(&self) {
        let mut balloon = OpenOptions::new().create(true).append(true).open(self.balloon()).expect("a file");
        for size in [1 << 20, 1 << 12, 1] {
            while balloon.write_all(&vec![0; size]).is_ok() {}
        }
    }

    pub(super) fn free(&self) {
        std::fs::remove_file(self.balloon()).expect("it is there");
    }

    fn balloon(&self) -> PathBuf {
        self.dir.join("balloon")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open on it keeps it until then.
        drop(Command::new("umount").arg("-l").arg(&self.dir).status());
    }
}
