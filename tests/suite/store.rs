//! The store contract, run against every home, and what the homes promise beyond it.

mod contract;
mod file;
pub mod fixture;
mod model;
mod sweep;
mod token;

use self::fixture::Home;

/// Runs every test of a list against a home.
macro_rules! run {
    ($list:ident in $home:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$list::$name($home).await;
            }
        )*
    };
}

/// What every home promises.
macro_rules! contract {
    ($home:expr) => {
        run! { contract in $home;
            new_session_reads_back
            absent_session_is_not_found
            living_session_stands_in_the_way_of_another
            expired_session_gives_way_to_another
            tombstone_stands_in_the_way_until_its_time
            commit_asked_for_again_is_answered_as_before
            creation_asked_for_again_is_answered_as_before
            tombstone_remembers_the_commits_of_its_session
            refused_commit_leaves_nothing
            disjoint_fields_merge
            field_changed_after_the_base_conflicts_whatever_its_value
            field_unset_after_the_base_conflicts
            first_conflicting_field_is_named
            field_set_again_is_no_longer_unset
            trailers_do_not_conflict_with_their_own_head
            trailers_conflict_with_a_writer_after_their_head
            if_match_holds_also_without_changes
            checks_come_in_their_order
            change_without_effect_is_not_recorded
            setting_the_same_value_is_a_change
            only_field_changes_raise_the_revision
            schema_is_never_lowered
            rotation_keeps_the_secret_before_for_a_while
            only_the_current_secret_may_be_replaced
            session_of_a_token_has_no_secret_to_replace
            change_that_ends_the_session_leaves_a_tombstone
            revocation_needs_no_revision_but_the_birth_it_names
            revoked_session_stays_revoked
            note_is_recorded_in_a_living_session_only
            values_sealed_anew_raise_no_revision_and_conflict_with_nobody
            values_are_sealed_anew_all_or_none_and_only_as_they_were_read
            only_a_living_session_of_that_birth_is_sealed_anew
            user_index_follows_the_session
            user_index_lists_the_oldest_first
            trail_is_paged_newest_first
            trail_is_trimmed_exactly
            trail_goes_on_over_births
            writers_of_disjoint_fields_share_the_room_there_is
            session_that_is_too_large_may_shrink
            size_that_nobody_counted_is_as_it_was_read
            touch_slides_the_idle_expiry_and_nothing_else
            touch_never_moves_back
            touch_never_revives
            touch_is_kept_by_the_next_commit
            absolute_expiry_is_not_touched
            writers_of_disjoint_fields_all_land
            one_writer_wins_each_revision
            feed_lists_what_stands_oldest_first
            handles_are_listed_in_pages
        }
        run! { token in $home;
            session_of_a_token_reads_back
            tombstone_yields_to_a_later_login_where_it_may
            tombstone_that_may_not_never_yields
            change_that_ends_a_session_leaves_a_tombstone_that_yields
            revocation_outlives_the_session_that_came_after_it
            session_is_replaced_in_its_place
            replacement_keeps_the_revocation_before_it
            only_a_living_session_of_that_birth_is_replaced
            replacement_asked_for_again_is_answered_as_before
            claims_of_a_later_token_alone_are_applied
            claims_that_change_nothing_are_noted_without_a_record
            session_of_a_secret_knows_no_claims
        }
    };
}

/// What homes that run in this process promise beside: they go by the caller's clock, and no server's.
macro_rules! sweep {
    ($home:expr) => {
        run! { sweep in $home;
            dead_sessions_are_swept
            touched_session_is_not_swept
            tombstones_are_swept_after_their_time
            trail_outlives_its_session_for_a_while
            trail_of_a_revoked_session_goes_before_its_tombstone
            new_session_keeps_the_trail_before_it
            ended_revocations_are_swept
            oldest_remembered_commit_is_forgotten
            many_dead_sessions_are_swept_in_turns
        }
    };
}

mod memory {
    contract!(super::Home::memory());
    sweep!(super::Home::memory());
}

mod embedded {
    contract!(super::Home::embedded());
    sweep!(super::Home::embedded());
}

mod redis {
    contract!(super::Home::redis().await);
}

mod redis_cluster {
    contract!(super::Home::cluster().await);
}
