//! What holds of phases, ramps, transitions and templates, whatever the input.

use crossfade_migration_core::key::Key;
use crossfade_migration_core::phase::{Epoch, Mirroring, Phase, Ramp, Side, Standing};
use crossfade_migration_core::ramp;
use crossfade_migration_core::template::Template;
use crossfade_migration_core::transition::{Request, is_irreversible, next_standing};
use proptest::prelude::*;

fn ramps() -> impl Strategy<Value = Ramp> {
    prop_oneof![Just(Ramp::NONE), Just(Ramp::FULL), (0..=1_000_000_u32).prop_map(Ramp::from_ppm)]
}

fn requests() -> impl Strategy<Value = Request> {
    prop_oneof![
        ramps().prop_map(|ramp| Request::Advance { ramp }),
        ramps().prop_map(Request::Ramp),
        Just(Request::Rollback),
    ]
}

/// All standings that these requests lead through, the impossible ones left out.
fn walk(requests: &[Request], is_reversible: bool) -> Vec<(Standing, Request, Standing)> {
    let mut at = Standing::INITIAL;
    let mut steps = Vec::new();
    for &request in requests {
        if let Ok(to) = next_standing(at, request, is_reversible) {
            steps.push((at, request, to));
            at = to;
        }
    }
    steps
}

/// Parts of a statement that hold no mark, whatever is in them.
fn opaque() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9(),=. ]{0,8}",
        "'([a-z:;ü\" -]|''|:keys){0,8}'",
        "\"([a-z:;' -]|\"\"|:keys){0,8}\"",
        "-- [a-z:;'\"]{0,8}:keys\n",
        "/\\*[a-z:;'\" ]{0,8}:keys\\*/",
        "\\$q\\$[a-z:;'\" ]{0,8}:keys\\$q\\$",
        Just("::keys ".to_owned()),
        Just(":keys_of ".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// I3: two adjacent epochs may be live at once. Whatever one of them reads, the other's writes reach.
    #[test]
    fn adjacent_epochs_are_safe_together(
        requests in prop::collection::vec(requests(), 0..24), reversible: bool, key in any::<i64>(),
    ) {
        let key = Key::from(key);
        for (from, _, to) in walk(&requests, reversible) {
            for (writer, reader) in [(from, to), (to, from)] {
                let (writes, reads) = (
                    writer.mirroring(ramp::is_in("moving", &key, writer.ramp)),
                    reader.reads(ramp::is_in("moving", &key, reader.ramp)),
                );
                let reaches = writer.phase.primary() == reads
                    || match reads {
                        Side::New => writes == Mirroring::OldToNew,
                        Side::Old => writes == Mirroring::NewToOld,
                    };
                // The old path is closed one way: its last readers are behind by the lease at most.
                let is_one_way = writer.phase >= Phase::NewOnly;
                prop_assert!(reaches || is_one_way, "{writer} writes what {reader} reads elsewhere");
            }
        }
    }

    #[test]
    fn every_step_opens_the_next_epoch_and_moves_one_phase_at_most(
        requests in prop::collection::vec(requests(), 0..24), reversible: bool,
    ) {
        for (from, request, to) in walk(&requests, reversible) {
            prop_assert_eq!(to.epoch, from.epoch.next());
            let moved = to.phase as i32 - from.phase as i32;
            prop_assert_eq!(moved, match request {
                Request::Advance { .. } => 1,
                Request::Ramp(_) => 0,
                Request::Rollback => -1,
            });
            prop_assert!(to.phase.is_ramped() || to.ramp == Ramp::FULL, "{to}");
        }
    }

    #[test]
    fn what_can_be_undone_is_what_was_not_called_irreversible(
        requests in prop::collection::vec(requests(), 0..24), reversible: bool,
    ) {
        let mut is_committed = false;
        for (from, request, to) in walk(&requests, reversible) {
            let undone = next_standing(to, Request::Rollback, reversible);
            if let Request::Advance { .. } = request {
                is_committed |= is_irreversible(from.phase, request, reversible);
                prop_assert_eq!(undone.is_err(), is_committed, "{} to {}", from, to);
                if let Ok(undone) = undone {
                    prop_assert_eq!(undone.phase, from.phase);
                }
            }
        }
    }

    #[test]
    fn a_key_in_a_ramp_is_in_every_larger_one(key in "\\PC{0,12}", one in ramps(), other in ramps()) {
        let key = Key::from(key.as_str());
        let (smaller, larger) = (one.min(other), one.max(other));
        prop_assert!(!ramp::is_in("moving", &key, smaller) || ramp::is_in("moving", &key, larger));
        prop_assert!(ramp::is_in("moving", &key, Ramp::FULL));
        prop_assert!(!ramp::is_in("moving", &key, Ramp::NONE));
    }

    #[test]
    fn a_percentage_survives_the_way_to_a_ramp_and_back(ppm in 0..=1_000_000_u32) {
        let ramp = Ramp::from_ppm(ppm);
        prop_assert_eq!(Ramp::from_percent(ramp.percent()).unwrap(), ramp);
    }

    #[test]
    fn a_standing_shows_its_phase_and_epoch(index in 0..Phase::ALL.len(), epoch in 1..i64::MAX, ramp in ramps()) {
        let phase = Phase::ALL[index];
        let shown = Standing { phase, ramp, epoch: Epoch(epoch) }.to_string();
        prop_assert!(shown.contains(phase.as_str()) && shown.contains(&epoch.to_string()), "{shown}");
        prop_assert_eq!(shown.contains('%'), phase.is_ramped());
    }

    #[test]
    fn no_text_makes_the_template_panic(sql in "\\PC{0,40}") {
        if let Ok(template) = Template::parse(&sql) {
            prop_assert!(template.occurrences() > 0);
        }
    }

    #[test]
    fn only_marks_are_replaced(parts in prop::collection::vec(opaque(), 1..6)) {
        let marked = format!("select {}", parts.join(" :keys "));
        let sql = format!("{marked} :keys");
        let template = Template::parse(&sql).unwrap();
        prop_assert_eq!(template.occurrences(), parts.len());
        let expected = format!("select {} <1>", parts.join(" <1> "));
        let rendered = template.render("<1>");
        prop_assert_eq!(rendered.trim_end(), expected);
        // Rendered with the mark itself it is what it was, and is cut the same again.
        prop_assert_eq!(Template::parse(&template.to_string()).unwrap(), template);
    }
}
