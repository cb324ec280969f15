//! Processor time of a side, where an experiment measures it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};

/// Runs a future and sums the processor time of the threads that polled it, while they polled it. `None`
/// where it is not asked for, or the platform cannot tell.
pub(crate) async fn metered<T>(on: bool, future: impl Future<Output = T>) -> (T, Option<Duration>) {
    if !on {
        return (future.await, None);
    }
    let mut future = pin!(future);
    let mut spent = Some(Duration::ZERO);
    let output = poll_fn(|context| {
        let before = thread_time();
        let poll = future.as_mut().poll(context);
        spent = sum(spent, before, thread_time());
        poll
    })
    .await;
    (output, spent)
}

/// As [`metered`], for code that does not await.
pub(crate) fn metered_sync<T>(on: bool, run: impl FnOnce() -> T) -> (T, Option<Duration>) {
    if !on {
        return (run(), None);
    }
    let before = thread_time();
    let output = run();
    (output, sum(Some(Duration::ZERO), before, thread_time()))
}

fn sum(spent: Option<Duration>, before: Option<Duration>, after: Option<Duration>) -> Option<Duration> {
    Some(spent? + after?.saturating_sub(before?))
}

#[cfg(all(unix, not(miri)))]
fn thread_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
}

#[cfg(not(all(unix, not(miri))))]
fn thread_time() -> Option<Duration> {
    None
}

#[cfg(all(test, unix, not(miri)))]
mod tests {
    use super::*;

    fn burn(wanted: Duration) {
        let started = thread_time().unwrap();
        while thread_time().unwrap() - started < wanted {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn counts_what_is_computed_and_nothing_where_off() {
        let wanted = Duration::from_millis(2);
        assert!(metered_sync(true, || burn(wanted)).1.unwrap() >= wanted);
        assert_eq!(metered_sync(false, || ()).1, None);
    }

    #[test]
    fn leaves_out_what_runs_between_two_polls() {
        let burns = async {
            burn(Duration::from_millis(2));
            let mut waited = false;
            poll_fn(|_| {
                if std::mem::replace(&mut waited, true) {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            })
            .await;
        };
        let mut future = pin!(metered(true, burns));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
        burn(Duration::from_millis(20));
        let std::task::Poll::Ready((_, Some(spent))) = future.as_mut().poll(&mut context) else {
            panic!("the second poll ends it");
        };
        assert!(spent >= Duration::from_millis(2) && spent < Duration::from_millis(20), "{spent:?}");
    }
}
