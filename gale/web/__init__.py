"""What gale shows over HTTP: metrics for Prometheus, whether it is well, and a page for people.

http.py        HTTP/1.1 within bounds, for strangers may reach it
families.py    the metrics of a load balancer, of what it knows at one moment
exposition.py  metrics as text, a little at a time
page.py        what the page shows of one moment; static/ is the page
orders.py      orders from the page, and from whom they are taken
health.py      whether a load balancer is fit to be sent traffic
serving.py     where is listened, and what holds for all that is read
site.py        which path of a load balancer is answered with what
node_families.py, node_site.py   the same of a node, which shows metrics, health and readiness only
"""
