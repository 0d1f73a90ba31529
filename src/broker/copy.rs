//! A copy is not the original: a restored backup, or a clone for staging, must not spend production's refresh tokens.

use anyhow::Context;
use uuid::Uuid;

use crate::{
    journal::Journal,
    store::{Installation, Store},
};

/// Which installation a replica works for, and whether it may.
#[derive(Clone, Debug)]
pub struct Recognised {
    /// Stands in the markers.
    pub installation: Uuid,
    /// Why nothing is rotated, made, revoked or swept.
    pub frozen: Option<String>,
}

/// Compares the `database` with where it ran last, and with the journal directory. With `adopt` a copy becomes an installation of
/// its own, and a journal of another installation this one's: its pairs are committed where they fit.
///
/// # Errors
/// Postgres, or the directory.
pub async fn recognise(store: &Store, mut database: Installation, journal: &Journal, adopt: bool) -> anyhow::Result<Recognised> {
    let kept = journal.installation()?;
    if let Some(why) = stranger(&database, kept) {
        if !adopt {
            tracing::error!(
                why,
                "frozen: nothing is rotated, made, revoked or swept; --adopt makes this an installation of its own"
            );
            return Ok(Recognised { installation: database.id, frozen: Some(why) });
        }
        // Another replica of this installation may have been adopted first, with this journal's id among its previous ones.
        let adopted = !database.is_copy && kept.is_some_and(|kept| database.previous_ids.contains(&kept));
        if !adopted {
            store.adopt(database.id, kept.filter(|kept| *kept != database.id)).await.context("adopting the database")?;
            database = store.installation().await.context("reading which installation the database is")?;
        }
        tracing::warn!(why, installation = %database.id, "adopted: from now on this is an installation of its own");
    }
    if database.is_new {
        store.settle_down().await.context("taking down which database this is")?;
    }
    if kept != Some(database.id) {
        journal.belong_to(database.id)?;
    }
    Ok(Recognised { installation: database.id, frozen: None })
}

fn stranger(database: &Installation, kept: Option<Uuid>) -> Option<String> {
    if database.is_copy {
        return Some("this database is a copy: the service ran last on another server or database".to_owned());
    }
    let kept = kept.filter(|kept| *kept != database.id)?;
    Some(format!("the journal directory belongs to installation {kept}, the database is installation {}", database.id))
}
