//! Export, job queue, copy, verification, backfill and cleanup against real databases: each test is a function of the
//! engine, and runs on every one of them.

mod backfill;
mod cleanup;
mod closing;
mod copy;
mod crash;
mod export;
mod leases;
mod resumed;
mod since;
mod world;

/// Runs the named functions of the named modules on every engine.
macro_rules! on_every_engine {
    ($($module:ident { $($name:ident),* $(,)? })*) => {
        mod on_sqlite {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    crate::$module::$name::<sqlx::Sqlite>().await;
                })*
            })*
        }
        mod on_postgres {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    crate::$module::$name::<sqlx::Postgres>().await;
                })*
            })*
        }
    };
}

on_every_engine! {
    leases {
        many_workers_never_hold_one_chunk,
        a_lease_that_ran_out_is_anybodys_and_its_late_owner_is_told,
        a_chunk_goes_on_where_it_was_left,
        pausing_waits_for_the_chunk_in_flight_and_resuming_goes_on,
        cancelling_ends_a_job_once_its_chunks_are_back,
        a_failing_chunk_rests_and_is_given_up_in_the_end,
        one_unfinished_job_of_a_kind,
        a_job_of_a_passed_epoch_makes_room,
        tuning_is_heard_with_the_next_renewal,
        an_unknown_job_is_an_error,
    }
    copy {
        missing_rows_are_copied_and_wrong_ones_repaired,
        nothing_is_copied_before_writes_are_mirrored,
        findings_that_do_not_belong_here_are_refused,
        damaged_findings_end_the_job,
        a_row_that_cannot_be_copied_names_its_key,
        copying_under_concurrent_writers_loses_and_resurrects_nothing,
        a_copy_stops_when_the_migration_moves_on,
        a_stopped_copy_goes_on_where_it_was,
        what_was_deleted_from_the_new_primary_does_not_come_back,
    }
    backfill {
        a_backfill_ends_clean_with_evidence,
        a_second_backfill_finds_nothing_and_keeps_only_what_evidence_points_at,
        findings_that_healed_are_no_faults,
        an_interrupted_export_is_no_snapshot_and_is_done_again,
        rounds_end_and_say_what_is_left,
        an_unfinished_copy_is_gone_on_with,
        an_unfinished_copy_whose_findings_are_lost_makes_room_for_a_new_round,
    }
    cleanup {
        what_was_verified_is_removed_and_the_rest_is_left,
        without_a_baseline_only_equal_rows_are_removed,
        a_chosen_baseline_is_followed_and_a_wrong_one_refused,
        nothing_is_removed_before_new_only_or_without_a_mapping,
        a_stopped_cleanup_goes_on_where_it_was,
        a_cleanup_whose_work_is_damaged_begins_again,
    }
    closing {
        keys_written_after_the_verification_are_removed_too,
        without_the_closing_such_keys_are_left,
        writers_up_to_the_last_moment_leave_nothing_behind,
        a_closing_that_is_broken_off_has_been_made_and_says_so,
        a_folder_in_use_is_said_before_anything_changes,
    }
    crash {
        a_worker_that_was_killed_in_the_middle_of_a_chunk_loses_nothing,
    }
}
