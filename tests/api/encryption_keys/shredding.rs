//! What is left of a deleted team in a backup that was taken before: as much as the master keys that are kept open. Said as it is.

use serde_json::json;
use token_broker::{
    crypto::{MasterKeyError, MasterKeys, Place},
    secret::{Sealed, Wrapped},
};
use uuid::Uuid;

use super::{a_day_passes_for_the_journal, until, with_keys};
use crate::app::{TestApp, TestDatabase, some_master_key};

/// Opens an access token in the backup as whoever has these master keys would.
async fn open_in(backup: &TestDatabase, team: &str, master_keys: &str) -> Result<Vec<u8>, MasterKeyError> {
    let keys = MasterKeys::parse(master_keys).expect("keys");
    let mut connection = backup.connect().await;
    let (id, owner, master_key_id, wrapped): (Uuid, Uuid, String, Vec<u8>) = sqlx::query_as(
        "select d.id, d.team_id, d.master_key_id, d.wrapped from data_keys d join teams t on t.id = d.team_id where t.name = $1",
    )
    .bind(team)
    .fetch_one(&mut connection)
    .await
    .expect("the backup has it");
    let wrapped = Wrapped { master_key_id, sealed: Sealed::from_bytes(wrapped) };
    let key = keys.unwrap(owner, &id.to_string(), &wrapped).await?;
    let (row, generation, sealed): (Uuid, i64, Vec<u8>) =
        sqlx::query_as("select id, generation, access_token from chains where team_id = $1 and letter = 'a'")
            .bind(owner)
            .fetch_one(&mut connection)
            .await
            .expect("a chain");
    let place = Place { table: "chains", row, column: "access_token", generation };
    Ok(key.open(place, &Sealed::from_bytes(sealed)).expect("its key opens it").to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_team_is_noise_in_every_backup_once_its_master_key_is_destroyed_and_not_before() {
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    let token = app.ci.refresh("deploy", json!({})).await.expect(200).access_token().to_owned();
    app.stop().await;
    let backup = app.database.copy().await;
    app.start_again().await;

    app.admin.delete("/tokens/deploy").await.expect(204);
    app.platform.delete("/teams/payments").await.expect(204);
    assert_eq!(app.database.count("select count(*) from data_keys").await, 0, "the data key is gone with its team");
    // The claim is no larger than this: whoever kept the backup and the master key has what was in it.
    let (old, new) = (app.master_keys.clone(), some_master_key("k2"));
    let opened = [open_in(&backup, "payments", &old).await.expect("it opens still")];
    assert!(String::from_utf8_lossy(&opened[0]).len() > 20 && !token.is_empty());
    assert!(!app.simulator.is_alive(&token), "but what it says was revoked at JFrog before the team could be deleted");

    with_keys(&mut app, &[&new, &old]).await;
    app.platform.post("/encryption-keys/rewrap", json!({})).await.expect(202);
    until(&app, "re-wrapped", |keys| keys["rewrap"].is_null()).await;
    a_day_passes_for_the_journal(&app);
    with_keys(&mut app, &[&new, &old]).await;
    app.platform.post("/encryption-keys/retire", json!({"id": "k1"})).await.expect(200);
    with_keys(&mut app, &[&new]).await;

    // The old key is destroyed: today's opens nothing of that backup, under its own name or the old one's.
    assert_eq!(open_in(&backup, "payments", &new).await, Err(MasterKeyError::Missing("k1".into())));
    let disguised = new.replace("k2:", "k1:");
    assert!(matches!(open_in(&backup, "payments", &disguised).await, Err(MasterKeyError::Damaged { .. })));
    app.stop().await;
    app.database = backup;
    let refused = app.refused_to_start().await;
    assert!(refused.contains("master key k1 is needed and is not in the list"), "{refused}");
}
