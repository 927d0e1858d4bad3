"""What gale shows over HTTP: metrics for Prometheus, whether it is well, and a page for people.

http.py        HTTP/1.1 within bounds, for strangers may reach it
families.py    the metrics of a load balancer, of what it knows at one moment
exposition.py  metrics as text, a little at a time
page.py        what the page shows of one moment; static/ is the page
orders.py      orders from the page, and from whom they are taken
health.py      whether a load balancer is fit to be sent traffic
site.py        which path is answered with what
"""
