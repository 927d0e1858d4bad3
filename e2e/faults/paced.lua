-- For wrk: each connection waits so many milliseconds before it asks.
function delay()
   return 10
end
