//! A network between the product and a server that fails once, where a test wants it to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How long a server is still there for what was sent to it, after its answers are lost.
const LINGER: Duration = Duration::from_millis(150);

/// A running proxy. Its threads end with the process.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    /// How many more pieces the client may send before the network is cut; zero is never.
    left: Arc<AtomicUsize>,
    /// Whether a connection is held then instead of cut.
    holds: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens on a port of its own, and passes everything on to `port` of this machine.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let own = listener.local_addr().expect("its address").port();
        let left = Arc::new(AtomicUsize::new(0));
        let holds = Arc::new(AtomicBool::new(false));
        let (shared, shared_holds) = (Arc::clone(&left), Arc::clone(&holds));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (left, holds) = (Arc::clone(&shared), Arc::clone(&shared_holds));
                std::thread::spawn(move || {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", port)) {
                        pass(client, server, &left, &holds);
                    }
                });
            }
        });
        Self { port: own, left, holds }
    }

    /// The port on which it listens at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Passes on this many pieces of what clients send, on all connections together. The last one reaches the server, and its answer reaches nobody:
    /// that connection is cut, once.
    pub fn cut_after(&self, piece_count: usize) {
        self.holds.store(false, Ordering::SeqCst);
        self.left.store(piece_count, Ordering::SeqCst);
    }

    /// The same, but nothing is cut: on the connection of the last piece, which does not reach the server, nothing passes any more in any
    /// direction, and both ends believe that the other one is there.
    pub fn hold_after(&self, piece_count: usize) {
        self.holds.store(true, Ordering::SeqCst);
        self.left.store(piece_count, Ordering::SeqCst);
    }

    /// Whether the cut that was asked for has not come.
    pub fn is_waiting(&self) -> bool {
        self.left.load(Ordering::SeqCst) > 0
    }
}

fn pass(mut client: TcpStream, mut server: TcpStream, left: &AtomicUsize, holds: &AtomicBool) {
    let (Ok(mut answers), Ok(mut back)) = (server.try_clone(), client.try_clone()) else { return };
    let down = std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length) = answers.read(&mut buffer) {
            // What is lost is read all the same, so that the server goes on.
            if length == 0 || back.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        drop(back.shutdown(Shutdown::Both));
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length) = client.read(&mut buffer) {
        if length == 0 {
            break;
        }
        let before = left.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if before == Ok(1) && holds.load(Ordering::SeqCst) {
            // Until the process ends.
            loop {
                std::thread::park();
            }
        }
        if before == Ok(1) {
            drop(client.shutdown(Shutdown::Both));
            drop(server.write_all(&buffer[..length]));
            std::thread::sleep(LINGER);
            break;
        }
        if server.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    drop(server.shutdown(Shutdown::Both));
    drop(client.shutdown(Shutdown::Both));
    drop(down.join());
}
