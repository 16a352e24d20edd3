//! What ends a token's session, and what may come after it.

use super::*;

#[tokio::test]
async fn logging_in_again_after_a_logout_works_for_a_user_and_never_for_a_login() {
    let desk = desk();
    for claim in ["sub", "sid", "email"] {
        let first = token(claim, "x-1", NOW);
        let session = desk.enters(&first).await;
        desk.revoke(&session).await;
        assert_eq!(desk.refuses(&first).await, LoadError::Revoked);
        desk.clock.advance(2 * SECOND);
        let now = desk.clock.now().seconds() as i64;
        // Refreshed tokens keep the time of the login.
        let refreshed = token(claim, "x-1", now).with_login_time(Some(NOW));
        assert_eq!(desk.refuses(&refreshed).await, LoadError::Revoked);
        assert_eq!(desk.refuses(&token(claim, "x-1", now).with_login_time(None)).await, LoadError::Revoked);
        let again = desk.load(&token(claim, "x-1", now)).await;
        if claim == "sub" {
            assert!(again.unwrap().is_new);
            assert_eq!(desk.refuses(&refreshed).await, LoadError::Revoked);
            assert_eq!(desk.refuses(&token(claim, "x-1", now).with_login_time(None)).await, LoadError::Revoked);
            // Also where the new session has expired, or was begun anew.
            let living = desk.enters(&token(claim, "x-1", now)).await;
            desk.start(&token(claim, "x-1", now), Some(&living), &[]).await.unwrap();
            assert_eq!(desk.refuses(&refreshed).await, LoadError::Revoked);
            desk.clock.advance(Duration::from_secs(2 * 3600));
            assert_eq!(desk.refuses(&refreshed).await, LoadError::Revoked);
            desk.clock.advance(SECOND);
            assert_eq!(desk.refuses(&refreshed).await, LoadError::Revoked);
            assert!(desk.load(&token(claim, "x-1", now)).await.unwrap().is_new);
        } else {
            assert_eq!(again.unwrap_err(), LoadError::Revoked);
        }
    }
}

#[tokio::test]
async fn an_ended_session_of_a_token_is_remembered_for_as_long_as_revocations_are() {
    let desk = desk();
    let session = desk.enters(&token("sid", "s-1", NOW)).await;
    let end = Proposal { end: true, ..Proposal::default() };
    let actor = Actor::new(ActorKind::Backend);
    desk.sessions.commit(&session, session.base(None), &end, Action::Write, &actor).await.unwrap();
    desk.clock.advance(Duration::from_secs(30 * 86_400) - SECOND);
    let now = desk.clock.now().seconds() as i64;
    assert_eq!(desk.refuses(&token("sid", "s-1", now)).await, LoadError::Revoked);
    desk.clock.advance(SECOND);
    assert!(desk.load(&token("sid", "s-1", now)).await.unwrap().is_new);
}

#[tokio::test]
async fn a_users_revocation_is_that_of_one_issuer_or_of_all() {
    let desk = desk_with(&CONFIG.replace("max_per_user: 2", "max_per_user: null"));
    let login = |now: Time| of_user(now.seconds() as i64);
    let mine = desk.enters(&login(desk.clock.now())).await;
    desk.revoke_user(Some("https://other.example")).await;
    desk.revoke_user(Some("")).await;
    desk.enters(&login(desk.clock.now())).await;
    desk.revoke_user(Some(ISSUER)).await;
    assert_eq!(desk.refuses(&login(desk.clock.now())).await, LoadError::Revoked);
    let unlisted = token("sid", "s-9", NOW);
    assert_eq!(desk.refuses(&unlisted).await, LoadError::Revoked, "tokens of logins before are void, sessions or not");
    let starts = Assertion::sample(ISSUER, "u-1", ("sid", "s-8"), NOW).on_missing_reinit();
    let user = [("user_id", json!("u-1"))];
    assert_eq!(desk.start(&starts, None, &user).await.unwrap_err(), CommitError::Revoked);
    desk.clock.advance(2 * SECOND);
    let again = desk.enters(&login(desk.clock.now())).await;
    assert_ne!(again.birth(), mine.birth());
}

#[tokio::test]
async fn a_revoked_token_is_void_and_another_of_its_session_is_not() {
    let desk = desk();
    let first = of_user(NOW).with_token_id("j-1");
    desk.enters(&first).await;
    desk.sessions.revoke_token("j-1", Time((NOW as u64 + 600) * 1000)).await.unwrap();
    assert_eq!(desk.refuses(&first).await, LoadError::Revoked);
    desk.enters(&of_user(NOW).with_token_id("j-2")).await;
    desk.enters(&of_user(NOW)).await;
}

#[tokio::test]
async fn one_more_session_than_a_user_may_have_revokes_the_oldest() {
    let desk = desk();
    let sid = |value: &str| token("sid", value, NOW);
    let oldest = desk.enters(&sid("1")).await;
    desk.clock.advance(SECOND);
    desk.enters(&sid("2")).await;
    desk.clock.advance(SECOND);
    desk.enters(&sid("9").with_claims(&[("user_id", Some(json!("u-2")))])).await;
    desk.enters(&sid("3")).await;
    assert_eq!(desk.refuses(&sid("1")).await, LoadError::Revoked);
    assert_eq!(desk.actions(&oldest).await, ["create", "revoke"]);
    for stays in ["2", "3"] {
        desk.enters(&sid(stays)).await;
    }
    // A session that becomes the user's counts as well.
    desk.clock.advance(SECOND);
    desk.enters(&token("sid", "9", NOW + 1)).await;
    assert_eq!(desk.refuses(&sid("2")).await, LoadError::Revoked);
    for stays in ["3", "9"] {
        desk.enters(&sid(stays)).await;
    }
}

#[tokio::test]
async fn racing_creations_leave_no_more_than_the_bound() {
    let desk = desk();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..24 {
        let sessions = desk.sessions.clone();
        tasks.spawn(async move {
            let assertion = token("sid", &n.to_string(), NOW);
            sessions.load_by_token(&assertion, &Actor::new(ActorKind::Client)).await.is_ok()
        });
    }
    tasks.join_all().await;
    let keys: Vec<UserKey> = vec![desk.sessions.keyring().user_key(Some(ISSUER), "u-1")];
    assert_eq!(desk.sessions.sessions_of(&keys).await.unwrap().len(), 2);
}
