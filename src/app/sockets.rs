//! Every socket that a sidecar listens on: bound first, so that a taken port leaves nothing behind.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::admin;
use crate::config::{self, Config};
use crate::drain::Drain;
use crate::exchange::Exchanges;
use crate::in_force::InForce;
use crate::listener::{Bound, Listener, Terms};

use super::reload::Desk;
use super::{StartError, follow_files};

/// Every address that is listened on, bound and not served yet.
pub(super) struct Sockets {
    proxy: Vec<Listener>,
    admin: TcpListener,
    status: TcpListener,
}

impl Sockets {
    pub async fn bind(config: &Config, terms: Vec<Terms>) -> Result<Self, StartError> {
        Ok(Self {
            proxy: config.listeners.iter().zip(terms).map(bind).collect::<Result<_, _>>()?,
            admin: listen(&config.admin.address).await?,
            status: listen(&config.status.address).await?,
        })
    }

    pub fn addresses(&self) -> Result<(Vec<Bound>, SocketAddr, SocketAddr), StartError> {
        let unknown = cannot_listen("a bound address");
        let proxy = self.proxy.iter().map(|listener| listener.bound().map_err(&unknown)).collect::<Result<_, _>>()?;
        let (admin, status) = (self.admin.local_addr(), self.status.local_addr());
        Ok((proxy, admin.map_err(&unknown)?, status.map_err(&unknown)?))
    }

    /// The terms of every listener, by its address in the file.
    pub fn terms(&self, config: &Config) -> Vec<(String, InForce<Terms>)> {
        let of = |(raw, listener): (&config::Listener, &Listener)| (raw.address.clone(), listener.terms());
        config.listeners.iter().zip(&self.proxy).map(of).collect()
    }

    pub fn serve(self, exchanges: &InForce<Exchanges>, desk: &Desk, drain: &Drain) -> Vec<JoinHandle<()>> {
        let serve =
            |socket, router: &InForce<Router>| tokio::spawn(admin::serve(socket, router.clone(), drain.clone()));
        let mut tasks = vec![serve(self.admin, &desk.all), serve(self.status, &desk.status)];
        let terms = self.proxy.iter().map(Listener::terms).collect();
        tasks.push(tokio::spawn(follow_files(terms, drain.clone())));
        let proxies = self.proxy.into_iter().map(|listener| listener.serve(drain.clone(), exchanges.clone()));
        tasks.extend(proxies.map(tokio::spawn));
        tasks
    }
}

fn bind((raw, terms): (&config::Listener, Terms)) -> Result<Listener, StartError> {
    Listener::bind(&raw.address, InForce::new(terms)).map_err(cannot_listen(&raw.address))
}

async fn listen(address: &str) -> Result<TcpListener, StartError> {
    let refused = cannot_listen(address);
    let parsed: SocketAddr = address.parse().map_err(|_| refused(not_an_address()))?;
    TcpListener::bind(parsed).await.map_err(refused)
}

fn cannot_listen(address: &str) -> impl Fn(std::io::Error) -> StartError {
    move |error| StartError::Listen { address: address.to_owned(), error }
}

fn not_an_address() -> std::io::Error {
    std::io::Error::other("it is not an address and a port")
}
