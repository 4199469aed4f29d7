//! Runs over a network to which something happens.

use subak_testkit::{Proxy, Sandbox};

/// Runs what `prepare` makes over a network to which `happen` does something behind the n-th piece that is sent, for every `step`th n, and once
/// more where the run could not make it good. What `found` reads afterwards is always the same. Returns the first n that no run reached.
pub(crate) fn survives(
    proxy: &Proxy,
    step: usize,
    happen: impl Fn(&Proxy, usize),
    prepare: impl Fn(usize) -> Sandbox,
    found: impl Fn(&Sandbox, usize) -> Vec<String>,
) -> usize {
    let mut expected: Option<Vec<String>> = None;
    let mut piece = 0;
    loop {
        let sandbox = prepare(piece);
        happen(proxy, piece);
        let ran = sandbox.run(&["run"]);
        let is_over = proxy.is_waiting();
        proxy.cut_after(0);
        if ran.code != Some(0) {
            // Whatever it could not say, the next run makes good.
            sandbox.run(&["run"]).expect(0);
        }
        let found = found(&sandbox, piece);
        match &expected {
            None => expected = Some(found),
            Some(expected) => assert_eq!(&found, expected, "behind piece {piece}: {}", ran.err),
        }
        if is_over {
            return piece;
        }
        piece += step;
    }
}
