//! Time as a dependency.

use async_trait::async_trait;
use subak_domain::Timestamp;

/// Tells the time and waits.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
    /// Returns at `deadline` or later; at once when it has passed.
    async fn sleep_until(&self, deadline: Timestamp);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else takes")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let wait = std::time::Duration::try_from(deadline.duration_since(self.now())).unwrap_or_default();
        tokio::time::sleep(wait).await;
    }
}
