//! Rules that let each JWT in once.

use serde_json::json;

use super::World;

#[tokio::test]
async fn a_jwt_is_good_for_one_call_where_its_rule_says_so() {
    let world = World::start().await;
    world.write(world.rule("once", json!({"single_use": true}))).await.expect(201);
    let job = world.job(json!({"jti": "first"}));
    job.get("/whoami").await.expect(200);
    for _ in 0..3 {
        job.get("/whoami").await.refused(401, "unauthenticated");
    }
    // The same jti in another JWT of that issuer is a replay all the same.
    world.job(json!({"jti": "first", "run_id": "78"})).get("/whoami").await.refused(401, "unauthenticated");
    world.job(json!({"jti": "second"})).get("/whoami").await.expect(200);
    world.job(json!({"jti": null})).get("/whoami").await.refused(401, "unauthenticated");
    let why = "select count(*) from audit_events where outcome = 'refused' and reason like '%was not used before%'";
    assert_eq!(world.app.database.count(why).await, 5);
}

#[tokio::test]
async fn of_many_calls_at_once_one_is_let_in() {
    let world = World::start().await;
    world.write(world.rule("once", json!({"single_use": true}))).await.expect(201);
    world.job(json!({"jti": "before"})).get("/whoami").await.expect(200);
    let job = world.job(json!({"jti": "raced"}));
    let answers = futures_util::future::join_all((0..20).map(|_| job.get("/whoami"))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
}

#[tokio::test]
async fn used_up_for_one_rule_a_jwt_is_still_good_for_another() {
    let world = World::start().await;
    world.write(world.rule("once", json!({"single_use": true, "tokens": ["a"]}))).await.expect(201);
    world.write(world.rule("often", json!({"tokens": ["b"]}))).await.expect(201);
    let job = world.job(json!({"jti": "x"}));
    assert_eq!(job.get("/whoami").await.expect(200).json["tokens"], json!(["a", "b"]));
    assert_eq!(job.get("/whoami").await.expect(200).json["tokens"], json!(["b"]));
}

#[tokio::test]
async fn explaining_uses_nothing_up_and_what_has_ended_is_forgotten() {
    let world = World::start().await;
    world.write(world.rule("once", json!({"single_use": true}))).await.expect(201);
    let job = world.job(json!({"jti": "explained"}));
    let explain = "/teams/payments/trust-rules/explain";
    let explained = world.app.admin.post(explain, json!({"jwt": job.key()})).await.expect(200).json;
    assert_eq!((&explained["jwt_refused"], &explained["items"][0]["matched"]), (&json!(null), &json!(true)));
    job.get("/whoami").await.expect(200);
    world.app.database.run("update used_jtis set until = now() - interval '1 s'").await;
    world.job(json!({"jti": "next"})).get("/whoami").await.expect(200);
    assert_eq!(world.app.database.count("select count(*) from used_jtis").await, 1);
}
