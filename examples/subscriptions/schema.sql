-- The service's two tables: the old store and the new one.

create table customers (
    id            integer primary key,
    name          text not null,
    subscriptions text not null default '[]' check (json_type(subscriptions) = 'array')
);

create table subscriptions (
    customer_id integer not null references customers,
    id          integer not null,
    plan        text    not null,
    price_cents integer not null,
    cancelled   boolean not null,
    primary key (customer_id, id)
) without rowid;
