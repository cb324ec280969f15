//! The one place that reads time.
//!
//! Calls are timed by the processor's time stamp counter where it is invariant: a read costs a third of the
//! operating system's clock, which matters where a call takes a hundred nanoseconds.

use std::time::Duration;

/// A point in time, in ticks of the clock: only its distance to another one means anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick(u64);

/// The process's clock.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    source: Source,
    started: Tick,
}

impl Clock {
    pub(crate) fn started() -> Self {
        let source = Source::new();
        let started = Tick(source.ticks());
        Self { source, started }
    }

    #[inline]
    pub(crate) fn tick(&self) -> Tick {
        Tick(self.source.ticks())
    }

    /// Nanoseconds from one point to a later one; 0 where processors disagree on which is later.
    #[inline]
    pub(crate) fn between(&self, from: Tick, to: Tick) -> u64 {
        self.source.nanoseconds(from.0, to.0)
    }

    /// Nanoseconds since the experiment was built.
    pub(crate) fn now_ns(&self) -> u64 {
        self.between(self.started, self.tick())
    }
}

#[cfg(not(miri))]
#[derive(Debug, Clone)]
struct Source(quanta::Clock);

#[cfg(not(miri))]
impl Source {
    fn new() -> Self {
        Self(quanta::Clock::new())
    }

    #[inline]
    fn ticks(&self) -> u64 {
        self.0.raw()
    }

    #[inline]
    fn nanoseconds(&self, from: u64, to: u64) -> u64 {
        self.0.delta_as_nanos(from, to)
    }
}

/// The interpreter knows no time stamp counter.
#[cfg(miri)]
#[derive(Debug, Clone)]
struct Source(std::time::Instant);

#[cfg(miri)]
impl Source {
    fn new() -> Self {
        Self(std::time::Instant::now())
    }

    fn ticks(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    fn nanoseconds(&self, from: u64, to: u64) -> u64 {
        to.saturating_sub(from)
    }
}

/// What calls are said to have taken, where a test fixes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FixedDurations {
    pub(crate) control: Duration,
    pub(crate) candidate: Duration,
}
