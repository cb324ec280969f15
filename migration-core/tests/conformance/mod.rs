//! One suite for all engines: each test is a function of the engine, and runs on every one of them.

mod check;
mod comparisons;
mod control;
mod copy;
pub(crate) mod engine;
mod fence;
mod fleet;
mod keys;
mod mirror;
mod read;
mod rows;
mod sqlite;
mod stress;
pub(crate) mod world;

/// Runs the named functions of the named modules on every engine.
macro_rules! conformance {
    ($($module:ident { $($name:ident),* $(,)? })*) => {
        mod on_sqlite {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    crate::conformance::$module::$name::<sqlx::Sqlite>().await;
                })*
            })*
        }
        mod on_postgres {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    crate::conformance::$module::$name::<sqlx::Postgres>().await;
                })*
            })*
        }
    };
}

conformance! {
    control {
        installing_twice_is_installing_once,
        two_installers_at_once_do_not_collide,
        tables_that_are_not_crossfades_are_refused,
        a_store_without_tables_says_so,
        registering_follows_the_rules,
        an_unknown_migration_names_the_known_ones,
        a_change_moves_standing_and_audit_together,
        of_two_operators_one_is_told,
        history_is_in_order_and_whole,
        the_latest_evidence_of_each_kind_and_epoch_counts,
    }
    fence {
        a_change_times_out_while_a_write_is_in_flight,
        a_change_waits_for_the_write_in_flight,
        a_write_that_begins_after_the_change_sees_it,
        a_write_decided_before_the_change_is_stale_after_it,
        a_transaction_begun_by_the_app_holds_the_fence,
        a_transaction_that_read_before_the_change_cannot_write_after_it,
        a_mirror_decided_before_the_change_writes_nothing,
        the_fence_may_be_taken_again,
    }
    fleet {
        an_instance_renews_adopts_and_leaves,
        a_lease_that_ran_out_is_not_live,
        the_old_paths_last_use_is_kept_by_epoch,
    }
    comparisons {
        an_instances_tallies_replace_its_earlier_ones,
        mismatches_are_bounded_and_newest_first,
    }
    mirror {
        one_key_may_have_no_row_one_or_several,
        a_mirror_touches_only_what_differs,
        a_partial_update_of_a_row_not_yet_copied_takes_the_whole_key,
        a_deleted_key_takes_its_rows_along,
        orphans_of_the_key_go_and_others_stay,
        the_reverse_brings_the_old_store_up_to_date,
        mirroring_no_key_still_fences,
        differing_keys_are_found,
        a_row_that_the_projection_gives_twice_differs,
        the_projection_comes_as_a_batch,
        retiring_empties_the_projection,
        a_rolled_back_mirror_leaves_nothing,
    }
    copy {
        a_copy_inserts_what_is_absent_and_never_overwrites,
        a_copy_at_a_stale_epoch_does_nothing,
        a_copy_brings_nothing_back_once_the_new_store_is_primary,
        a_repair_follows_the_phase,
        keys_that_are_equal_are_retired_and_others_left,
        a_copy_of_many_keys_is_split,
    }
    keys {
        integer_keys,
        text_keys,
        composite_keys,
        bytes_keys,
        uuid_keys,
        odd_names,
    }
    rows {
        both_sides_come_in_the_plans_order_and_schema,
        text_keys_come_in_bytewise_order,
        a_read_sees_one_moment,
        many_rows_come_in_batches,
        a_dropped_receiver_ends_the_read,
    }
    read {
        while_shadowing_the_caller_gets_controls_answer,
        mismatches_and_tallies_reach_the_control_store,
        read_new_follows_the_ramp,
        in_new_only_the_old_closure_is_never_called,
        the_old_paths_guard_names_migration_and_call_site,
        a_key_that_is_read_is_retired_if_it_is_equal,
    }
    stress {
        nothing_is_lost_while_everybody_is_at_work,
    }
    check {
        sampled_keys_are_spread_over_the_table,
        a_good_projection_has_no_faults,
        a_null_in_a_not_null_column_is_a_fault,
        two_rows_for_one_new_key_are_a_fault,
        two_keys_claiming_one_row_are_a_fault,
        a_row_outside_the_scope_is_a_fault,
        rows_that_the_new_table_refuses_are_faults,
        what_is_another_each_time_is_warned_of,
        a_reverse_that_is_the_inverse_has_no_faults,
        a_reverse_that_forgets_deletions_is_a_fault,
        a_reverse_that_changes_the_projection_is_a_fault,
    }
}
