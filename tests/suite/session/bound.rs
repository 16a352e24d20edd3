//! How many sessions one user may have.

use serde_json::json;

use crate::house::{Answer, Guest, House, Plan};

use super::{MILLISECOND, asks};

const BOUND: &str = "max_per_user: 2";

fn login(house: &House, path: &str, user: &str) -> Guest {
    house.backend.next_to(path, Answer::ok().header("cloakroom-start", &format!("user_id=\"{user}\"")));
    house.get(path).send().guest()
}

#[test]
fn one_session_more_than_a_user_may_have_revokes_their_oldest() {
    for plan in [Plan::new(), Plan::new().embedded()] {
        let house = plan.session(BOUND).open();
        let mut guests = Vec::new();
        for _ in 0..2 {
            guests.push(login(&house, "/login", "u-1"));
            house.clock.advance(MILLISECOND);
        }
        let other = login(&house, "/login", "u-2");
        assert_eq!(asks(&house, "/chat", &guests[0]), 200);
        guests.push(house.guest(json!({ "user_id": "u-1" })));
        house.get("/chat").cookie(&guests[0]).send().is(401, "session-revoked");
        for guest in [&guests[1], &guests[2], &other] {
            assert_eq!(asks(&house, "/chat", guest), 200);
        }
        let trail = house.trail(&guests[0]);
        assert_eq!((&trail[1]["action"], &trail[1]["actor"]["kind"]), (&json!("revoke"), &json!("cloakroom")));
        assert_eq!(house.metric("cloakroom_sessions_revoked_total"), 1);
        assert!(house.visitor().handle != house.visitor().handle, "who has no user is not counted");
        house.close();
    }
}

#[test]
fn creations_at_once_leave_no_more_than_a_user_may_have() {
    for plan in [Plan::new(), Plan::new().embedded()] {
        let house = plan.session(BOUND).open();
        let guests: Vec<Guest> = std::thread::scope(|scope| {
            let logins: Vec<_> = (0..12)
                .map(|n| {
                    let house = &house;
                    scope.spawn(move || login(house, &format!("/login/{n}"), "u-1"))
                })
                .collect();
            logins.into_iter().map(|login| login.join().unwrap()).collect()
        });
        let living = guests.iter().filter(|guest| asks(&house, "/chat", guest) == 200).count();
        assert_eq!(living, 2);
        house.close();
    }
}
