#!/bin/sh
# Loads the rentals of the Sakila sample database as an application might have kept them before a migration:
#
#     DATABASE_URL=postgres://… docs/tutorial/load.sh SAKILA_DIR
#
# SAKILA_DIR holds the tables `customer` and `rental` as customer.csv and rental.csv: with a header line, an
# empty field for NULL, times in UTC. (Sakila is Copyright (c) 2014, Oracle Corporation, under the new BSD
# licence.)
#
# Afterwards there is the old model, a table `customer` whose column `rentals` is an array of JSON objects, and
# an empty table `rental` for the new one. All of it is one transaction: a database that has either table
# already stays as it was.
set -eu

if [ $# -ne 1 ] || [ -z "${DATABASE_URL:-}" ]; then
    echo 'usage: DATABASE_URL=postgres://… docs/tutorial/load.sh SAKILA_DIR' >&2
    exit 2
fi
for table in customer rental; do
    if [ ! -r "$1/$table.csv" ]; then
        echo "error: cannot read $1/$table.csv" >&2
        echo "hint: name the folder that holds the Sakila tables as CSV files" >&2
        exit 1
    fi
done
# In psql's commands a quote within quotes is doubled.
folder=$(printf '%s' "$1" | sed "s/'/''/g")

psql --no-psqlrc --quiet --single-transaction --set ON_ERROR_STOP=1 "$DATABASE_URL" <<SQL
-- The old model.
create table customer (
    customer_id integer primary key,
    store_id    smallint not null,
    first_name  text not null,
    last_name   text not null,
    email       text,
    address_id  integer not null,
    active      boolean not null,
    create_date timestamptz not null,
    last_update timestamptz not null,
    rentals     jsonb not null default '[]'
);

-- The new model. The key begins with the customer, so that a customer's rentals are found by it.
create table rental (
    customer_id  integer not null,
    rental_id    integer not null,
    rental_date  timestamptz not null,
    inventory_id integer not null,
    return_date  timestamptz,
    staff_id     smallint not null,
    last_update  timestamptz not null,
    primary key (customer_id, rental_id)
);

set local timezone to 'UTC';
create temporary table customer_csv (like customer) on commit drop;
alter table customer_csv drop column rentals;
create temporary table rental_csv (like rental) on commit drop;
\copy customer_csv from '$folder/customer.csv' (format csv, header match)
\copy rental_csv (rental_id, rental_date, inventory_id, customer_id, return_date, staff_id, last_update) from '$folder/rental.csv' (format csv, header match)

-- Times stand in the array in UTC, without saying so, as they do in many an array.
insert into customer
select c.*, coalesce(r.rentals, '[]')
from customer_csv c
left join (
    select customer_id, jsonb_agg(jsonb_build_object(
        'rental_id', rental_id,
        'rental_date', rental_date at time zone 'UTC',
        'inventory_id', inventory_id,
        'return_date', return_date at time zone 'UTC',
        'staff_id', staff_id,
        'last_update', last_update at time zone 'UTC') order by rental_id) as rentals
    from rental_csv
    group by customer_id
) r using (customer_id);

-- Numbers for the rentals to come.
create sequence rental_number owned by rental.rental_id;
select setval('rental_number', max(rental_id)) from rental_csv \g /dev/null

analyze customer, rental;
select count(*) as customers, sum(jsonb_array_length(rentals)) as rentals from customer;
SQL
