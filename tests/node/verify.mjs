// Reads lines of JSON {"key": JWK, "algorithms": [...], "token": "..."}; for each writes the payload in base64, or null.
// With "claims", the options of jwtVerify, the claims are validated, too.
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const { compactVerify, importJWK, jwtVerify } = await import(
  pathToFileURL(`${process.argv[2]}/jose/dist/webapi/index.js`)
)

for await (const line of createInterface({ input: process.stdin })) {
  const { key, algorithms, token, claims } = JSON.parse(line)
  try {
    const imported = await importJWK(key, algorithms[0])
    const { payload } = await compactVerify(token, imported, { algorithms })
    if (claims) {
      await jwtVerify(token, imported, { ...claims, algorithms, currentDate: new Date(claims.now * 1000) })
    }
    console.log(JSON.stringify(Buffer.from(payload).toString('base64')))
  } catch {
    console.log('null')
  }
}
