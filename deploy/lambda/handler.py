"""AWS Lambda behind API Gateway, a function URL or a load balancer. Handler: handler.handler."""

from mangum import Mangum

from authwright.serverless import Serverless

# Made once for each container; the store is opened with its first request.
handler = Mangum(Serverless(), lifespan="off")
