//! Whose a journal's directory is: an id of its own, and the installation that it belongs to.

use std::{fs, io, io::Write, path::Path};

use anyhow::Context;
use uuid::Uuid;

use super::{Journal, private_file, sync_dir};

impl Journal {
    /// The directory's own: replicas come and go, what lies here stays.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Which installation the directory belongs to; `None`: to none yet.
    ///
    /// # Errors
    /// It cannot be read, or holds no id.
    pub fn installation(&self) -> anyhow::Result<Option<Uuid>> {
        let path = self.dir.join("installation");
        match fs::read_to_string(&path) {
            Ok(id) => Ok(Some(id.trim().parse().with_context(|| format!("{} holds no id", path.display()))?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// From now on the directory belongs to this installation.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn belong_to(&self, installation: Uuid) -> anyhow::Result<()> {
        Ok(replace(&self.dir.join("installation"), installation.to_string().as_bytes())?)
    }
}

/// Of a directory that has none yet, a new one.
pub(super) fn own_id(path: &Path) -> anyhow::Result<Uuid> {
    match fs::read_to_string(path) {
        Ok(id) => Ok(id.trim().parse()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = Uuid::new_v4();
            replace(path, id.to_string().as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = private_file(&unfinished)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}
