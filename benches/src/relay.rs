//! `bench relay`: the proxy that one writes in fifty lines with the crate tokio-splice, as a yardstick.
//!
//! Says `ready` when it listens. TCP only; a task for each connection on tokio's threads.

use std::io::{Write, stdout};
use std::net::SocketAddr;

use clap::Args;
use tokio::net::{TcpListener, TcpStream};

pub(crate) const READY: &str = "ready";
/// Of the crate, as the manifest asks for it.
pub(crate) const CRATE_VERSION: &str = "0.2.1";

/// The hidden subcommand.
#[derive(Args)]
pub(crate) struct Relay {
    from: SocketAddr,
    to: SocketAddr,
}

impl Relay {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        tokio::runtime::Builder::new_multi_thread().enable_io().build()?.block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.from).await?;
        writeln!(stdout(), "{READY}")?;
        loop {
            let (client, _) = listener.accept().await?;
            tokio::spawn(async move {
                // Either end may go away at any time; a proxy of fifty lines has nobody to tell.
                let _ = forward(client, self.to).await;
            });
        }
    }
}

async fn forward(mut client: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let mut backend = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    backend.set_nodelay(true)?;
    tokio_splice::zero_copy_bidirectional(&mut client, &mut backend).await?;
    Ok(())
}
