// Reads lines of JSON {"key": JWK, "algorithms": [...], "token": "..."}; for each writes the payload in base64, or null.
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const { compactVerify, importJWK } = await import(pathToFileURL(`${process.argv[2]}/jose/dist/webapi/index.js`))

for await (const line of createInterface({ input: process.stdin })) {
  const { key, algorithms, token } = JSON.parse(line)
  try {
    const { payload } = await compactVerify(token, await importJWK(key, algorithms[0]), { algorithms })
    console.log(JSON.stringify(Buffer.from(payload).toString('base64')))
  } catch {
    console.log('null')
  }
}
