//! In line: candidate and comparison on the caller's task, where that is wanted.

use std::{future::Future, pin::pin, task::Poll};

use crate::{
    Experiment, Order, View,
    apart::apart,
    contain::{Contained, caught, caught_sync},
    leave::Leave,
    meter::{metered, metered_sync},
    sample::Draw,
    settle::Side,
    turns::{both, bounded, poll_both},
};

impl<V: 'static, E: 'static, L: View<V>> Experiment<V, E, L> {
    /// Runs both sides on the caller's task in the experiment's [`Order`], and gives back what control gave.
    /// The values are compared where they are: they need not be `Clone` or `Send`. The caller waits for the
    /// candidate too, up to [`in_line_timeout`](crate::Builder::in_line_timeout) where that is set; its errors
    /// and panics are contained.
    ///
    /// # Errors
    /// Control's, unchanged.
    pub async fn run_in_line<C, CF, N, NF>(
        &self,
        key: impl AsRef<[u8]>,
        control: C,
        candidate: N,
    ) -> Result<V, E>
    where
        C: FnOnce() -> CF,
        CF: Future<Output = Result<V, E>>,
        N: FnOnce() -> NF,
        NF: Future<Output = Result<V, E>>,
    {
        let (key, candidate) = (key.as_ref(), Contained::new(candidate));
        match self.draw_one(key) {
            Draw::Bare | Draw::ForcedName => control().await,
            draw => apart(pin!(self.run_drawn_in_line(draw, key, control, candidate))).await,
        }
    }

    async fn run_drawn_in_line<C, CF, N, NF>(
        &self,
        draw: Draw,
        key: &[u8],
        control: C,
        candidate: Contained<N>,
    ) -> Result<V, E>
    where
        C: FnOnce() -> CF,
        CF: Future<Output = Result<V, E>>,
        N: FnOnce() -> NF,
        NF: Future<Output = Result<V, E>>,
    {
        if draw == Draw::ForcedCandidate {
            return candidate.into_inner()().await;
        }
        let inner = &*self.inner;
        let only = &*inner.roster.only;
        let Some(pass) = inner.enter(only, key, &inner.decide(key)) else {
            return control().await;
        };
        let mut leave = Leave::new(only, pass);
        let clock = &inner.clock;
        let is_plain = !inner.measures_cpu && inner.in_line_timeout.is_none();
        // The common cases by themselves: each layer around a future costs nanoseconds.
        if is_plain && inner.order == Order::ControlFirst {
            let began = clock.tick();
            let old = control().await;
            let between = clock.tick();
            let new = caught(candidate).await;
            let ended = clock.tick();
            let wall_ns = (clock.between(began, between), clock.between(between, ended));
            inner.settle_plain(leave, key, &old, new, wall_ns);
            return old;
        }
        if is_plain && inner.order == Order::Concurrent {
            let began = clock.tick();
            let (mut control, mut candidate) = (pin!(control()), pin!(caught(candidate)));
            let (first_old, old_at, first_new, new_at) =
                poll_both(clock, control.as_mut(), candidate.as_mut()).await;
            if first_old.is_pending() || first_new.is_pending() {
                let first = (first_old, old_at, first_new, new_at);
                let ((old, old_at), (new, new_at)) = both(clock, first, control, candidate).await;
                let wall_ns = (clock.between(began, old_at), clock.between(began, new_at));
                inner.settle_plain(leave, key, &old, new, wall_ns);
                return old;
            }
            let (Poll::Ready(old), Poll::Ready(new)) = (first_old, first_new) else {
                unreachable!("neither is pending");
            };
            let wall_ns = (clock.between(began, old_at), clock.between(began, new_at));
            inner.settle_plain(leave, key, &old, new, wall_ns);
            return old;
        }
        let Some(candidate) = bounded(inner.in_line_timeout, caught(candidate)) else {
            leave.shed();
            return control().await;
        };
        let cpu = inner.measures_cpu;
        let began = clock.tick();
        let (old, new) = match inner.order {
            Order::Concurrent => {
                let (mut control, mut candidate) =
                    (pin!(metered(cpu, control())), pin!(metered(cpu, candidate)));
                let first = poll_both(clock, control.as_mut(), candidate.as_mut()).await;
                let ((old, old_ended), (new, new_ended)) = both(clock, first, control, candidate).await;
                (
                    Side::new(old, clock.between(began, old_ended)),
                    Side::new(new, clock.between(began, new_ended)),
                )
            }
            Order::Random if fastrand::bool() => {
                let new = metered(cpu, candidate).await;
                let between = clock.tick();
                let old = metered(cpu, control()).await;
                let ended = clock.tick();
                (Side::new(old, clock.between(between, ended)), Side::new(new, clock.between(began, between)))
            }
            Order::ControlFirst | Order::Random => {
                let old = metered(cpu, control()).await;
                let between = clock.tick();
                let new = metered(cpu, candidate).await;
                let ended = clock.tick();
                (Side::new(old, clock.between(began, between)), Side::new(new, clock.between(between, ended)))
            }
        };
        raise(inner.settle_in_line(leave, key, old.as_ref(), new));
        old.output
    }

    /// As [`run_in_line`](Self::run_in_line), for code that does not await. [`Order::Concurrent`] means
    /// control first here.
    ///
    /// # Errors
    /// Control's, unchanged.
    #[inline]
    pub fn run_sync_in_line<C, N>(&self, key: impl AsRef<[u8]>, control: C, candidate: N) -> Result<V, E>
    where
        C: FnOnce() -> Result<V, E>,
        N: FnOnce() -> Result<V, E>,
    {
        let candidate = Contained::new(candidate);
        match self.draw_one(key.as_ref()) {
            Draw::Bare | Draw::ForcedName => control(),
            Draw::ForcedCandidate => candidate.into_inner()(),
            Draw::Sampled => self.run_sampled_sync(key.as_ref(), control, candidate),
        }
    }

    fn run_sampled_sync<C, N>(&self, key: &[u8], control: C, candidate: Contained<N>) -> Result<V, E>
    where
        C: FnOnce() -> Result<V, E>,
        N: FnOnce() -> Result<V, E>,
    {
        let inner = &*self.inner;
        let only = &*inner.roster.only;
        let Some(pass) = inner.enter(only, key, &inner.decide(key)) else {
            return control();
        };
        let leave = Leave::new(only, pass);
        let (clock, cpu) = (&inner.clock, inner.measures_cpu);
        let candidate = || Some(caught_sync(candidate));
        let began = clock.tick();
        let (old, new) = if inner.order == Order::Random && fastrand::bool() {
            let new = metered_sync(cpu, candidate);
            let between = clock.tick();
            let old = metered_sync(cpu, control);
            let ended = clock.tick();
            (Side::new(old, clock.between(between, ended)), Side::new(new, clock.between(began, between)))
        } else {
            let old = metered_sync(cpu, control);
            let between = clock.tick();
            let new = metered_sync(cpu, candidate);
            let ended = clock.tick();
            (Side::new(old, clock.between(began, between)), Side::new(new, clock.between(between, ended)))
        };
        raise(inner.settle_in_line(leave, key, old.as_ref(), new));
        old.output
    }
}

/// Where the experiment raises, for tests: panics with what the candidate's end has to say.
#[inline]
pub(crate) fn raise(mismatch: Option<String>) {
    if let Some(mismatch) = mismatch {
        panic!("{mismatch}");
    }
}
