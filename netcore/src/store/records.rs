//! The typed queries: what can be asked of the store and changed in it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tx::{Broken, encode};
use super::{ReadTx, StoreError, WriteTx};
use crate::ipam::PoolId;
use crate::model::{
    Endpoint, EndpointId, Kind, Lease, MatchedOn, Network, NetworkId, NetworkName, ResolveError, Sandbox,
    SandboxId, SandboxName, name_of,
};

const NETWORK: &str = "network";
const SANDBOX: &str = "sandbox";
const ENDPOINT: &str = "endpoint";
const LEASE: &str = "lease";

impl ReadTx<'_> {
    /// All networks by name, in byte order.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn networks(&self) -> Result<Vec<Network>, StoreError> {
        self.records(NETWORK, "SELECT data FROM network ORDER BY name", ())
    }

    /// One network.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn network(&self, id: NetworkId) -> Result<Option<Network>, StoreError> {
        self.one(NETWORK, "SELECT data FROM network WHERE id = ?1", &id.to_string())
    }

    /// The network of a name.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn network_named(&self, name: &NetworkName) -> Result<Option<Network>, StoreError> {
        self.one(NETWORK, "SELECT data FROM network WHERE name = ?1", name.as_str())
    }

    /// The network that an argument means, as [`resolve`](crate::model::resolve()) has it.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn resolve_network(&self, argument: &str) -> Result<Network, StoreError> {
        self.resolve(Kind::Network, NETWORK, argument)
    }

    /// All sandboxes by name, in byte order.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn sandboxes(&self) -> Result<Vec<Sandbox>, StoreError> {
        self.records(SANDBOX, "SELECT data FROM sandbox ORDER BY name", ())
    }

    /// One sandbox.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn sandbox(&self, id: SandboxId) -> Result<Option<Sandbox>, StoreError> {
        self.one(SANDBOX, "SELECT data FROM sandbox WHERE id = ?1", &id.to_string())
    }

    /// The sandbox of a name.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn sandbox_named(&self, name: &SandboxName) -> Result<Option<Sandbox>, StoreError> {
        self.one(SANDBOX, "SELECT data FROM sandbox WHERE name = ?1", name.as_str())
    }

    /// The sandbox that an argument means, as [`resolve`](crate::model::resolve()) has it. A link's path is a name too.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn resolve_sandbox(&self, argument: &str) -> Result<Sandbox, StoreError> {
        self.resolve(Kind::Sandbox, SANDBOX, argument)
    }

    /// All endpoints, by network and name.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>, StoreError> {
        self.records(ENDPOINT, "SELECT data FROM endpoint ORDER BY network, name", ())
    }

    /// One endpoint.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn endpoint(&self, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        self.one(ENDPOINT, "SELECT data FROM endpoint WHERE id = ?1", &id.to_string())
    }

    /// The endpoints of a network, by name.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn endpoints_of_network(&self, network: NetworkId) -> Result<Vec<Endpoint>, StoreError> {
        let sql = "SELECT data FROM endpoint WHERE network = ?1 ORDER BY name";
        self.records(ENDPOINT, sql, [network.to_string()])
    }

    /// The endpoints of a sandbox, by network id.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn endpoints_of_sandbox(&self, sandbox: SandboxId) -> Result<Vec<Endpoint>, StoreError> {
        let sql = "SELECT data FROM endpoint WHERE sandbox = ?1 ORDER BY network";
        self.records(ENDPOINT, sql, [sandbox.to_string()])
    }

    /// All leases, by pool and address.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        self.some_leases("SELECT pool, address, endpoint FROM lease", ())
    }

    /// The leases of a pool, by address.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn leases_of_pool(&self, pool: &PoolId) -> Result<Vec<Lease>, StoreError> {
        self.some_leases("SELECT pool, address, endpoint FROM lease WHERE pool = ?1", [pool.as_str()])
    }

    /// The leases of an endpoint, by pool and address.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn leases_of_endpoint(&self, endpoint: EndpointId) -> Result<Vec<Lease>, StoreError> {
        let sql = "SELECT pool, address, endpoint FROM lease WHERE endpoint = ?1";
        self.some_leases(sql, [endpoint.to_string()])
    }

    fn one<T: DeserializeOwned>(
        &self,
        table: &'static str,
        sql: &str,
        key: &str,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.records(table, sql, [key])?.pop())
    }

    fn some_leases(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Lease>, StoreError> {
        let bad = |reason: &dyn ToString| StoreError::Record { table: LEASE, reason: reason.to_string() };
        let rows: Vec<(String, String, Option<String>)> =
            self.rows(sql, params, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let lease = |(pool, address, endpoint): (String, String, Option<String>)| {
            let endpoint = endpoint.map(|id| id.parse()).transpose().map_err(|error| bad(&error))?;
            Ok(Lease {
                pool: PoolId::new(pool),
                address: address.parse().map_err(|error| bad(&error))?,
                endpoint,
            })
        };
        let mut leases: Vec<Lease> = rows.into_iter().map(lease).collect::<Result<_, StoreError>>()?;
        leases.sort_unstable(); // by number; the column is text
        Ok(leases)
    }

    fn resolve<T: DeserializeOwned>(
        &self,
        kind: Kind,
        table: &'static str,
        argument: &str,
    ) -> Result<T, StoreError> {
        if argument.is_empty() {
            return Err(ResolveError::Empty(kind).into());
        }
        for (column, value) in [("id", argument), ("name", name_of(kind, argument))] {
            let sql = format!("SELECT data FROM {table} WHERE {column} = ?1");
            if let Some(found) = self.one(table, &sql, value)? {
                return Ok(found);
            }
        }
        if kind == Kind::Sandbox
            && let Some(id) = self.at_path(name_of(kind, argument))?
            && let Some(found) = self.one(table, "SELECT data FROM sandbox WHERE id = ?1", &id)?
        {
            return Ok(found);
        }
        // `g` is behind every digit, so this is the part of the index that begins with the argument.
        let sql = format!("SELECT data FROM {table} WHERE id >= ?1 AND id < ?1 || 'g'");
        let mut found: Vec<T> = self.records(table, &sql, [argument])?;
        let matches = found.len();
        let argument = argument.to_owned();
        match (found.pop(), matches) {
            (Some(only), 1) => Ok(only),
            (None, _) => Err(ResolveError::NotFound { kind, argument }.into()),
            _ => Err(ResolveError::Ambiguous { kind, argument, matches, on: MatchedOn::IdPrefix }.into()),
        }
    }
}

impl WriteTx<'_> {
    /// Adds a network.
    ///
    /// # Errors
    /// If its name is taken.
    pub fn insert_network(&self, network: &Network) -> Result<(), StoreError> {
        self.put(NETWORK, None, network)?.map_err(|broken| match broken {
            Broken::Unique(columns) if columns == "network.name" => {
                StoreError::NetworkExists(network.name.clone())
            }
            broken => other(NETWORK, &network.id, &broken),
        })
    }

    /// Changes a network.
    ///
    /// # Errors
    /// If it doesn't exist, or its new name is taken.
    pub fn update_network(&self, network: &Network) -> Result<(), StoreError> {
        self.put(NETWORK, Some(network.id.to_string()), network)?.map_err(|broken| match broken {
            Broken::Unique(_) => StoreError::NetworkExists(network.name.clone()),
            broken => other(NETWORK, &network.id, &broken),
        })
    }

    /// Removes a network. Leases of its pools stay: the address manager gives them back.
    ///
    /// # Errors
    /// If it doesn't exist, or has endpoints.
    pub fn delete_network(&self, id: NetworkId) -> Result<(), StoreError> {
        let endpoints = self.endpoints_of_network(id)?;
        if endpoints.is_empty() {
            return self.delete(NETWORK, &id);
        }
        let named =
            |endpoint: &Endpoint| format!("name:\"{}\" id:\"{}\"", endpoint.name, endpoint.id.short());
        let endpoints = endpoints.iter().map(named).collect::<Vec<_>>().join(", ");
        Err(StoreError::NetworkInUse { network: self.network_name(id)?, endpoints })
    }

    /// Adds a sandbox.
    ///
    /// # Errors
    /// If its name is taken.
    pub fn insert_sandbox(&self, sandbox: &Sandbox) -> Result<(), StoreError> {
        self.put(SANDBOX, None, sandbox)?.or_else(|broken| self.sandbox_broke(sandbox, &broken))?;
        self.insert_name(sandbox)
    }

    /// Changes a sandbox.
    ///
    /// # Errors
    /// If it doesn't exist, or its new name is taken.
    pub fn update_sandbox(&self, sandbox: &Sandbox) -> Result<(), StoreError> {
        let id = sandbox.id.to_string();
        let sql = "SELECT name FROM sandbox WHERE id = ?1 AND name <> ?2";
        let before: Vec<String> = self.rows(sql, (&id, sandbox.config.name.as_str()), |row| row.get(0))?;
        let put = self.put(SANDBOX, Some(id), sandbox)?;
        put.or_else(|broken| self.sandbox_broke(sandbox, &broken))?;
        before.iter().try_for_each(|before| self.change_name(sandbox, before))
    }

    /// Removes a sandbox, its links, and those that lead to it.
    ///
    /// # Errors
    /// If it doesn't exist, or has endpoints.
    pub fn delete_sandbox(&self, id: SandboxId) -> Result<(), StoreError> {
        self.delete(SANDBOX, &id)?;
        self.delete_name(id)
    }

    /// Adds an endpoint.
    ///
    /// # Errors
    /// If its network or sandbox doesn't exist, or the network has one of that name or sandbox.
    pub fn insert_endpoint(&self, endpoint: &Endpoint) -> Result<(), StoreError> {
        self.put(ENDPOINT, None, endpoint)?.or_else(|broken| self.endpoint_broke(endpoint, &broken))
    }

    /// Changes an endpoint.
    ///
    /// # Errors
    /// If it doesn't exist, and as [`insert_endpoint`](Self::insert_endpoint).
    pub fn update_endpoint(&self, endpoint: &Endpoint) -> Result<(), StoreError> {
        let row = Some(endpoint.id.to_string());
        self.put(ENDPOINT, row, endpoint)?.or_else(|broken| self.endpoint_broke(endpoint, &broken))
    }

    /// Removes an endpoint and its leases.
    ///
    /// # Errors
    /// If it doesn't exist.
    pub fn delete_endpoint(&self, id: EndpointId) -> Result<(), StoreError> {
        self.delete(ENDPOINT, &id)
    }

    /// Takes an address.
    ///
    /// # Errors
    /// If it is taken, or the endpoint doesn't exist.
    pub fn insert_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let endpoint = lease.endpoint.map(|id| id.to_string());
        let row = (lease.pool.as_str(), lease.address.to_string(), endpoint);
        self.change("INSERT INTO lease (pool, address, endpoint) VALUES (?1, ?2, ?3)", row)?
            .map(drop)
            .map_err(|broken| match broken {
                Broken::Unique(_) => StoreError::AddressTaken,
                Broken::Reference => StoreError::Reference { table: LEASE },
            })
    }

    /// Gives a taken address to another endpoint, or to none.
    ///
    /// # Errors
    /// If it isn't taken, or the endpoint doesn't exist.
    pub fn update_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let endpoint = lease.endpoint.map(|id| id.to_string());
        let row = (lease.pool.as_str(), lease.address.to_string(), endpoint);
        match self.change("UPDATE lease SET endpoint = ?3 WHERE pool = ?1 AND address = ?2", row)? {
            Ok(0) => Err(StoreError::Gone { table: LEASE, id: lease.address.to_string() }),
            Ok(_) => Ok(()),
            Err(_) => Err(StoreError::Reference { table: LEASE }),
        }
    }

    /// Gives an address back. Whether it was taken.
    ///
    /// # Errors
    /// If the store can't be written.
    pub fn delete_lease(&self, pool: &PoolId, address: std::net::IpAddr) -> Result<bool, StoreError> {
        let row = (pool.as_str(), address.to_string());
        let changed = self.change("DELETE FROM lease WHERE pool = ?1 AND address = ?2", row)?;
        changed.map(|rows| rows > 0).map_err(|_| StoreError::Reference { table: LEASE })
    }

    /// Gives all addresses of a pool back. How many were taken.
    ///
    /// # Errors
    /// If the store can't be written.
    pub fn delete_leases_of_pool(&self, pool: &PoolId) -> Result<usize, StoreError> {
        self.change("DELETE FROM lease WHERE pool = ?1", [pool.as_str()])?
            .map_err(|_| StoreError::Reference { table: LEASE })
    }

    /// Inserts a record, or replaces the one of id `row`.
    fn put<T: Serialize>(
        &self,
        table: &'static str,
        row: Option<String>,
        record: &T,
    ) -> Result<Result<(), Broken>, StoreError> {
        let data = encode(table, record)?;
        let Some(id) = row else {
            return Ok(self.change(&format!("INSERT INTO {table} (data) VALUES (?1)"), [data])?.map(drop));
        };
        match self.change(&format!("UPDATE {table} SET data = ?2 WHERE id = ?1"), (&id, data))? {
            Ok(0) => Err(StoreError::Gone { table, id }),
            done => Ok(done.map(drop)),
        }
    }

    fn delete(&self, table: &'static str, id: &impl ToString) -> Result<(), StoreError> {
        let id = id.to_string();
        match self.change(&format!("DELETE FROM {table} WHERE id = ?1"), [&id])? {
            Ok(0) => Err(StoreError::Gone { table, id }),
            Ok(_) => Ok(()),
            Err(_) => Err(StoreError::Reference { table }),
        }
    }

    fn network_name(&self, id: NetworkId) -> Result<String, StoreError> {
        Ok(self.network(id)?.map_or_else(|| id.to_string(), |network| network.name.into()))
    }

    fn sandbox_broke(&self, sandbox: &Sandbox, broken: &Broken) -> Result<(), StoreError> {
        match self.sandbox_named(&sandbox.config.name)? {
            Some(owner) if owner.id != sandbox.id => {
                Err(StoreError::SandboxExists { name: owner.config.name, owner: owner.id })
            }
            _ => Err(other(SANDBOX, &sandbox.id, broken)),
        }
    }

    fn endpoint_broke(&self, endpoint: &Endpoint, broken: &Broken) -> Result<(), StoreError> {
        match broken {
            Broken::Unique(columns) if columns != "endpoint.id" => Err(StoreError::EndpointExists {
                name: endpoint.name.clone(),
                network: self.network_name(endpoint.network)?,
            }),
            broken => Err(other(ENDPOINT, &endpoint.id, broken)),
        }
    }
}

fn other(table: &'static str, id: &impl ToString, broken: &Broken) -> StoreError {
    match broken {
        Broken::Unique(_) => StoreError::IdExists { table, id: id.to_string() },
        Broken::Reference => StoreError::Reference { table },
    }
}
