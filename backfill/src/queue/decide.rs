//! What follows for a job from what is wanted of it and how its chunks stand: pure functions, the same for every engine.

use std::time::Duration;

use super::{ATTEMPTS_MAX, Ending, JobState, Request, Tunables, Waiting};

/// How the chunks of a job stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChunkCounts {
    /// Chunks that anybody may take, now or after their backoff. A lease that has run out counts here.
    pub open: u64,
    /// Chunks that somebody holds.
    pub leased: u64,
    /// Chunks that are done.
    pub done: u64,
    /// Chunks that were given up.
    pub failed: u64,
}

/// What an operator, or a worker that knows better, changes about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// What is wanted of it.
    Request(Request),
    /// How it runs.
    Tune(Tunables),
    /// It can never go on, because of this.
    Fail(String),
}

/// The state of a job of which `requested` is wanted and whose chunks stand like this.
pub fn settled(state: JobState, requested: Request, chunks: ChunkCounts) -> JobState {
    if state.is_finished() {
        return state;
    }
    if chunks.open == 0 && chunks.leased == 0 {
        // Also where a pause or a cancellation came too late to hold anything back.
        return if chunks.failed > 0 { JobState::Failed } else { JobState::Done };
    }
    match requested {
        Request::Run => JobState::Running,
        // Not before the batches in flight are through: "paused" and "cancelled" mean that nothing happens any more.
        Request::Pause | Request::Cancel if chunks.leased > 0 => state,
        Request::Pause => JobState::Paused,
        Request::Cancel => JobState::Cancelled,
    }
}

/// Whether a worker may take a chunk of a job.
pub(super) fn may_claim(state: JobState, requested: Request) -> bool {
    !state.is_finished() && requested == Request::Run
}

/// Why a worker of an unfinished job got no chunk.
pub(super) fn why_none(requested: Request, chunks: ChunkCounts) -> Waiting {
    match requested {
        Request::Pause => Waiting::Paused,
        Request::Run | Request::Cancel if chunks.leased > 0 => Waiting::Others,
        Request::Run | Request::Cancel => Waiting::Backoff,
    }
}

/// What becomes of a chunk whose worker gives it up after `attempts` failures before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Afterwards<'a> {
    pub(super) state: &'static str,
    /// Failures so far, with this one.
    pub(super) attempts: u32,
    /// How long nobody may take it.
    pub(super) rest: Duration,
    pub(super) error: Option<&'a str>,
}

pub(super) fn afterwards(attempts: u32, ending: &Ending) -> Afterwards<'_> {
    let rest = Duration::ZERO;
    match ending {
        Ending::Done => Afterwards { state: "done", attempts, rest, error: None },
        Ending::Released => Afterwards { state: "open", attempts, rest, error: None },
        Ending::Failed { error } if attempts + 1 < ATTEMPTS_MAX => Afterwards {
            state: "open",
            attempts: attempts + 1,
            rest: backoff(attempts + 1),
            error: Some(error),
        },
        Ending::Failed { error } | Ending::GivenUp { error } => {
            Afterwards { state: "failed", attempts: attempts + 1, rest, error: Some(error) }
        }
    }
}

/// How long a chunk rests after its `attempts`-th failure: a second, doubled each time, and at most a minute.
pub fn backoff(attempts: u32) -> Duration {
    Duration::from_secs(1 << attempts.saturating_sub(1).min(6)).min(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(open: u64, leased: u64, done: u64, failed: u64) -> ChunkCounts {
        ChunkCounts { open, leased, done, failed }
    }

    #[test]
    fn a_job_is_done_when_its_chunks_are() {
        use JobState::{Done, Failed, Running};
        assert_eq!(settled(Running, Request::Run, chunks(0, 1, 9, 0)), Running);
        assert_eq!(settled(Running, Request::Run, chunks(0, 0, 10, 0)), Done);
        assert_eq!(settled(Running, Request::Run, chunks(0, 0, 9, 1)), Failed);
        assert_eq!(
            settled(Running, Request::Run, chunks(0, 0, 0, 0)),
            Done,
            "a job without chunks has nothing to do"
        );
        assert_eq!(settled(Running, Request::Pause, chunks(0, 0, 10, 0)), Done);
    }

    #[test]
    fn pausing_and_cancelling_wait_for_the_chunks_in_flight() {
        use JobState::{Cancelled, Paused, Running};
        for (request, state) in [(Request::Pause, Paused), (Request::Cancel, Cancelled)] {
            assert_eq!(settled(Running, request, chunks(3, 1, 0, 0)), Running);
            assert_eq!(settled(Running, request, chunks(4, 0, 0, 0)), state);
        }
        assert_eq!(settled(Paused, Request::Run, chunks(4, 0, 0, 0)), Running);
        assert_eq!(settled(Paused, Request::Cancel, chunks(4, 0, 0, 0)), Cancelled);
    }

    #[test]
    fn nothing_brings_a_finished_job_back() {
        for state in [JobState::Done, JobState::Cancelled, JobState::Failed] {
            for request in [Request::Run, Request::Pause, Request::Cancel] {
                assert_eq!(settled(state, request, chunks(5, 1, 1, 1)), state);
                assert!(!may_claim(state, request));
            }
        }
    }

    #[test]
    fn no_chunk_is_given_out_once_a_pause_is_wanted() {
        assert!(may_claim(JobState::Running, Request::Run));
        assert!(!may_claim(JobState::Running, Request::Pause));
        assert!(!may_claim(JobState::Running, Request::Cancel));
    }

    #[test]
    fn each_wait_has_its_reason() {
        assert_eq!(why_none(Request::Pause, chunks(3, 2, 0, 0)), Waiting::Paused);
        assert_eq!(why_none(Request::Run, chunks(3, 2, 0, 0)), Waiting::Others);
        assert_eq!(why_none(Request::Run, chunks(3, 0, 0, 0)), Waiting::Backoff);
    }

    #[test]
    fn a_chunk_is_tried_again_later_and_given_up_in_the_end() {
        let failed = Ending::Failed { error: "locked".into() };
        let first = afterwards(0, &failed);
        assert_eq!((first.state, first.attempts, first.rest), ("open", 1, Duration::from_secs(1)));
        let last = afterwards(ATTEMPTS_MAX - 1, &failed);
        assert_eq!((last.state, last.attempts), ("failed", ATTEMPTS_MAX));
        let hopeless = Ending::GivenUp { error: "no such value".into() };
        assert_eq!(afterwards(0, &hopeless).state, "failed");
    }

    #[test]
    fn a_crash_or_a_pause_is_no_attempt() {
        assert_eq!(afterwards(3, &Ending::Released).attempts, 3);
    }

    #[test]
    fn backoff_grows_and_ends() {
        let all: Vec<_> = (1..=9).map(|attempts| backoff(attempts).as_secs()).collect();
        assert_eq!(all, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
