//! The peers, set up as their documentation says.

use std::sync::Arc;

use launchdarkly_server_sdk::{
    Client, ConfigBuilder, Context, ContextBuilder, ExecutionOrder, MigratorBuilder, Stage,
};

/// A read through LaunchDarkly's migrator, offline, in the stage given: one caller, as its `&mut self` demands.
pub(crate) struct LaunchDarkly<F> {
    read: F,
}

impl<F: AsyncFnMut(Stage) -> u64> LaunchDarkly<F> {
    pub(crate) async fn read(&mut self, stage: Stage) -> u64 {
        (self.read)(stage).await
    }
}

/// Reads give 7 on both sides, at once.
pub(crate) fn launch_darkly(order: ExecutionOrder) -> LaunchDarkly<impl AsyncFnMut(Stage) -> u64> {
    launch_darkly_with(order, || std::future::ready(7), || std::future::ready(7))
}

pub(crate) fn launch_darkly_with<A, B>(
    order: ExecutionOrder,
    old: impl Fn() -> A + Send + Sync + Copy + 'static,
    new: impl Fn() -> B + Send + Sync + Copy + 'static,
) -> LaunchDarkly<impl AsyncFnMut(Stage) -> u64>
where
    A: Future<Output = u64> + Send + 'static,
    B: Future<Output = u64> + Send + 'static,
{
    let config = ConfigBuilder::new("offline").offline(true).build().expect("an offline configuration");
    let client = Arc::new(Client::build(config).expect("an offline client"));
    client.start_with_default_executor();
    let context: Context = ContextBuilder::new("customer-17").build().expect("a context");
    let mut migrator = MigratorBuilder::new(client)
        .read_execution_order(order)
        .read(
            move |_: &()| Box::pin(async move { Ok(old().await) }) as _,
            move |_: &()| Box::pin(async move { Ok(new().await) }) as _,
            Some(|old: &u64, new: &u64| old == new),
        )
        .write(|_: &()| Box::pin(async { Ok(0u64) }) as _, |_: &()| Box::pin(async { Ok(0u64) }) as _)
        .build()
        .expect("a migrator");
    LaunchDarkly {
        read: async move |stage| {
            migrator.read(&context, "migration".to_owned(), stage, ()).await.result.unwrap_or(0)
        },
    }
}
